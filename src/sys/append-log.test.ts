import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { AppendLog, readLog } from "./append-log.ts";

const NAME = "stdout.log";
let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "mayfly-log-"));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

async function kept(from = 0, place = directory): Promise<{ start: number; text: string }> {
  let start: number | undefined;
  let text = "";
  for await (const { offset, chunk } of readLog(place, NAME, from)) {
    start ??= offset;
    expect(offset).toBe(start + text.length);
    text += Buffer.from(chunk).toString("latin1");
  }
  return { start: start ?? 0, text };
}
const append = (log: AppendLog, text: string) => log.append(Buffer.from(text, "latin1"));

describe("a log", () => {
  test("keeps what is appended, and goes on after it is opened again", async () => {
    {
      using log = new AppendLog(directory, NAME, 1000);
      append(log, "one ");
      expect(log.offset).toBe(4);
    }
    using log = new AppendLog(directory, NAME, 1000);
    expect(log.offset).toBe(4);
    append(log, "two");
    expect(await kept()).toEqual({ start: 0, text: "one two" });
    expect(await kept(5)).toEqual({ start: 5, text: "wo" });
    expect(await kept(7)).toEqual({ start: 0, text: "" });
  });

  test("that is missing is empty", async () => {
    expect(await kept()).toEqual({ start: 0, text: "" });
    expect(await kept(0, join(directory, "nowhere"))).toEqual({ start: 0, text: "" });
  });

  test("keeps the end of a stream, and knows its offset whatever happens", async () => {
    const steps = fc.array(fc.record({ size: fc.nat({ max: 60 }), reopen: fc.boolean() }), { maxLength: 40 });
    let run = 0;
    await fc.assert(
      fc.asyncProperty(steps, fc.integer({ min: 2, max: 80 }), async (list, limit) => {
        const place = mkdtempSync(join(directory, `run${run++}-`));
        let log = new AppendLog(place, NAME, limit);
        let whole = "";
        for (const { size, reopen } of list) {
          const text = Array.from({ length: size }, (_, index) =>
            String.fromCharCode(33 + ((whole.length + index) % 90)),
          ).join("");
          append(log, text);
          whole += text;
          if (!reopen) continue;
          log[Symbol.dispose]();
          log = new AppendLog(place, NAME, limit);
        }
        expect(log.offset).toBe(whole.length);
        log[Symbol.dispose]();
        const { start, text } = await kept(0, place);
        expect(whole.endsWith(text)).toBe(true);
        expect(text === "" || start + text.length === whole.length).toBe(true);
        expect(text.length).toBeGreaterThanOrEqual(Math.min(whole.length, Math.floor(limit / 2)));
        expect(readdirSync(place).length).toBeLessThanOrEqual(2);
      }),
      { numRuns: 60 },
    );
  });

  test("survives a crash between setting a file aside and beginning the next", async () => {
    {
      using log = new AppendLog(directory, NAME, 1000);
      append(log, "before the crash ");
    }
    renameSync(join(directory, NAME), join(directory, `${NAME}.17`));
    using log = new AppendLog(directory, NAME, 1000);
    expect(log.offset).toBe(17);
    append(log, "after");
    expect((await kept()).text).toBe("before the crash after");
  });

  test("goes on at a later offset when bytes in between are gone", async () => {
    using log = new AppendLog(directory, NAME, 1000);
    append(log, "early");
    log.skipTo(3);
    expect(log.offset).toBe(5);
    log.skipTo(105);
    append(log, "late");
    expect(log.offset).toBe(109);
    const parts: string[] = [];
    for await (const { chunk } of readLog(directory, NAME, 0)) parts.push(Buffer.from(chunk).toString());
    expect(parts).toEqual(["early", "late"]);
    using again = new AppendLog(directory, NAME, 1000);
    expect(again.offset).toBe(109);
  });

  test("tells its listeners of each append, until they leave and when it is closed", () => {
    const log = new AppendLog(directory, NAME, 1000);
    let told = 0;
    const stop = log.watch(() => {
      told += 1;
    });
    append(log, "a");
    append(log, "b");
    expect(told).toBe(2);
    log[Symbol.dispose]();
    expect(told).toBe(3);
    stop();
  });
});
