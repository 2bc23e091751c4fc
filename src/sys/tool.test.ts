import { describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { MayflyError } from "../contract/errors.ts";
import { removePath, temporaryDirectory } from "./paths.ts";
import { pipeTools } from "./pipeline.ts";
import { runTool } from "./tool.ts";

async function failure(action: Promise<unknown>): Promise<MayflyError> {
  const error = await action.catch((reason: unknown) => reason);
  if (error instanceof MayflyError) return error;
  throw new Error("it did not fail");
}

describe("runTool", () => {
  test("gives both outputs, and lines as they come", async () => {
    const lines: string[] = [];
    const onLine = (line: string, source: string) => void lines.push(`${source} ${line}`);
    const result = await runTool(["sh", "-c", "printf 'a\\nb'; printf 'c\\n' >&2; cat"], {
      input: Buffer.from("!"),
      onLine,
    });
    expect(result).toEqual({ stdout: "a\nb!", stderr: "c\n" });
    expect(lines.sort()).toEqual(["stderr c", "stdout a", "stdout b!"]);
  });

  test("keeps nothing open for a program's input", async () => {
    const input = Buffer.from("!");
    const open = () => readdirSync("/proc/self/fd").length;
    await runTool(["cat"], { input });
    await Bun.sleep(20);
    const before = open();
    for (let count = 0; count < 5; count += 1) await runTool(["cat"], { input });
    await Bun.sleep(20);
    expect(open()).toBeLessThanOrEqual(before);
  });

  test("gives a program all of a long input, also one that reads nothing of it", async () => {
    const input = Buffer.alloc(10_000_000, "a\n");
    expect((await runTool(["wc", "-c"], { input })).stdout.trim()).toBe(String(input.length));
    expect((await runTool(["head", "-c", "1"], { input })).stdout).toBe("a");
    expect((await runTool(["sh", "-c", "exec <&-; echo closed"], { input })).stdout.trim()).toBe("closed");
  });

  test("a failure has exit code or signal and the end of the error output", async () => {
    const error = await failure(runTool(["sh", "-c", "echo first >&2; echo why >&2; exit 3"]));
    expect(error.code).toBe("tool_failed");
    expect(error.message).toEndWith("ended with code 3: why");
    expect(error.details).toMatchObject({ exitCode: 3, stderrTail: "first\nwhy" });
    expect((await failure(runTool(["sh", "-c", "kill -9 $$"]))).details.signal).toBe("SIGKILL");
  });

  test("a missing program names its package", async () => {
    expect((await failure(runTool(["/nowhere/musl-gcc"]))).details.remedy).toBe("apt-get install -y musl-tools");
  });

  test("deadline and abort kill the program and what it started", async () => {
    const slow = ["sh", "-c", "sleep 60 & echo started; wait"];
    expect((await failure(runTool(slow, { deadlineMs: 50 }))).code).toBe("deadline_exceeded");
    const abort = new AbortController();
    const running = failure(runTool(slow, { signal: abort.signal, onLine: () => abort.abort() }));
    expect((await running).code).toBe("cancelled");
    expect((await failure(runTool(["true"], { signal: abort.signal }))).code).toBe("cancelled");
  });

  test("an uninterruptible program ends by itself before the abort counts", async () => {
    const abort = new AbortController();
    const options = { signal: abort.signal, uninterruptible: true, onLine: () => abort.abort() };
    const error = await failure(runTool(["sh", "-c", "echo x; sleep 0.1; echo done >&2"], options));
    expect(error.code).toBe("cancelled");
    expect(error.details.stderrTail).toBe("done");
  });
});

describe("pipeTools", () => {
  test("every byte passes the inspection, and a slow sink holds back the source", async () => {
    let seenBytes = 0;
    const result = await pipeTools({
      source: ["head", "-c", "20000000", "/dev/zero"],
      sink: ["sh", "-c", "sleep 0.1; wc -c >&2"],
      inspect: (chunk) => {
        seenBytes += chunk.length;
        return chunk;
      },
      deadlineMs: 20_000,
    });
    expect(seenBytes).toBe(20_000_000);
    expect(result.sink).toEqual({ exitCode: 0, signal: null, stderrTail: "20000000" });
    expect(result.source.exitCode).toBe(0);
  });

  test("a refusal stops both; a sink that goes away is told by its end", async () => {
    const source = ["cat", "/dev/zero"];
    const refused = await pipeTools({
      source,
      sink: ["cat"],
      deadlineMs: 20_000,
      inspect: () => {
        throw new Error("no");
      },
    });
    expect(String(refused.refusal)).toBe("Error: no");
    const gone = await pipeTools({
      source,
      sink: ["sh", "-c", "echo bye >&2; exit 4"],
      deadlineMs: 20_000,
      inspect: (chunk) => chunk,
    });
    expect(gone.refusal).toBeUndefined();
    expect(gone.sink).toEqual({ exitCode: 4, signal: null, stderrTail: "bye" });
  });

  test("an endless pipeline meets its deadline", async () => {
    const endless = { source: ["cat", "/dev/zero"], sink: ["cat"], inspect: (chunk: Uint8Array) => chunk };
    expect((await failure(pipeTools({ ...endless, deadlineMs: 100 }))).code).toBe("deadline_exceeded");
  });
});

test("temporary directories are made and removed", async () => {
  const path = await temporaryDirectory("mayfly-test");
  await removePath(path);
  await removePath(path);
});
