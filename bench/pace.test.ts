import { expect, test } from "bun:test";
import { atFixedRate, pause } from "./pace.ts";

const never = new AbortController().signal;

test("starts keep their times although earlier ones have not ended", async () => {
  const startsMs: number[] = [];
  const gate = Promise.withResolvers<void>();
  const beginMs = performance.now();
  await atFixedRate(
    5,
    50,
    () => {
      startsMs.push(performance.now() - beginMs);
      if (startsMs.length === 5) gate.resolve();
      return gate.promise;
    },
    never,
  );
  expect(startsMs).toHaveLength(5);
  for (const [index, atMs] of startsMs.entries()) expect(atMs).toBeGreaterThanOrEqual(index * 20 - 1);
});

test("a failure is thrown after all others have ended", async () => {
  let ended = 0;
  const start = async () => {
    if (ended === 0) {
      ended += 1;
      throw new Error("the first one");
    }
    await pause(20, never);
    ended += 1;
  };
  expect(atFixedRate(3, 200, start, never)).rejects.toThrow("the first one");
  await pause(100, never);
  expect(ended).toBe(3);
});

test("a pause ends with its signal", async () => {
  const controller = new AbortController();
  const paused = pause(60_000, controller.signal);
  controller.abort();
  expect(paused).rejects.toThrow("interrupted");
  expect(pause(60_000, controller.signal)).rejects.toThrow("interrupted");
});
