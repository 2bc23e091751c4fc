import { expect, test } from "bun:test";
import { showProgress } from "./progress.ts";

function capture(isTerminal: boolean) {
  const written: string[] = [];
  return { written, output: { write: (text: string) => void written.push(text), isTerminal, columns: 40 } };
}

test("without a terminal each step that runs has a line at its start and at its end", () => {
  const { written, output } = capture(false);
  using display = showProgress(output);
  display.onProgress({ kind: "skipped", step: "packages" });
  display.onProgress({ kind: "started", step: "QEMU", reason: "not set up yet" });
  display.onProgress({ kind: "activity", step: "QEMU", message: "unpacking", fraction: 0.5 });
  display.onProgress({ kind: "finished", step: "QEMU", elapsedMs: 3400 });
  expect(written).toEqual(["QEMU: not set up yet ...\n", "QEMU: done in 3.4 s\n"]);
});

test("on a terminal the live line keeps to the width and is cleared", () => {
  const { written, output } = capture(true);
  const display = showProgress(output);
  display.onProgress({ kind: "started", step: "QEMU", reason: "x".repeat(200) });
  expect(written[0]).toHaveLength("\r".length + 39 + "\x1b[K".length);
  display[Symbol.dispose]();
  expect(written.at(-1)).toBe("\r\x1b[K");
});
