import { describe, expect, test } from "bun:test";
import { MayflyError } from "../contract/errors.ts";
import { Deadline, realtimeNs } from "./deadline.ts";

const never = new Promise<never>(() => undefined);
async function failure(promise: Promise<unknown>): Promise<MayflyError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof MayflyError) return error;
  throw new Error(`expected a MayflyError, got ${error}`);
}

describe("a deadline", () => {
  test("lets what happens in time happen", async () => {
    expect(await Deadline.after(1000).race(Promise.resolve(5), "five")).toBe(5);
    const cause = new Error("its own");
    await expect(Deadline.after(1000).race(Promise.reject(cause), "it")).rejects.toBe(cause);
  });

  test("ends a wait, and says for what and after how long", async () => {
    const error = await failure(Deadline.after(20).race(never, "the tide"));
    expect({ code: error.code, message: error.message }).toEqual({
      code: "deadline_exceeded",
      message: "the tide did not happen within 20 ms",
    });
  });

  test("that has passed ends a wait at once, unless it is over already", async () => {
    const deadline = Deadline.after(0);
    expect((await failure(deadline.race(never, "it"))).code).toBe("deadline_exceeded");
    expect(await deadline.race(Promise.resolve(1), "it")).toBe(1);
    expect(deadline.remainingMs).toBe(0);
  });

  test("throws the error that it is told to", async () => {
    const own = new MayflyError("agent_not_ready", "not ready");
    expect(await failure(Deadline.after(1).race(never, "it", () => own))).toBe(own);
  });

  test("is cancelled by its signal, before or while it waits", async () => {
    const controller = new AbortController();
    const deadline = Deadline.after(10_000, controller.signal);
    const waiting = failure(deadline.race(never, "it"));
    controller.abort();
    expect((await waiting).code).toBe("cancelled");
    expect((await failure(deadline.race(never, "it"))).code).toBe("cancelled");
    expect((await failure(deadline.within(5).race(never, "it"))).code).toBe("cancelled");
    // A failure that comes later is nobody's concern any more.
    expect((await failure(deadline.race(Promise.reject(new Error("late")), "it"))).code).toBe("cancelled");
  });

  test("within another is the earlier of both", () => {
    const far = Deadline.after(10_000);
    expect(far.within(50).remainingMs).toBeLessThanOrEqual(50);
    expect(far.within(20_000)).toBe(far);
    expect(Deadline.after(Number.POSITIVE_INFINITY).within(50).remainingMs).toBeLessThanOrEqual(50);
  });

  test("without an end waits for as long as it takes", async () => {
    const endless = Deadline.after(Number.POSITIVE_INFINITY);
    expect(endless.remainingMs).toBe(Number.POSITIVE_INFINITY);
    const late = new Promise((resolve) => setTimeout(() => resolve("late"), 20));
    expect(await endless.race(late, "it")).toBe("late");
    expect(await Deadline.after(2 ** 40).race(late, "it")).toBe("late");
  });
});

test("the host's time is now, in nanoseconds", () => {
  expect(Math.abs(Number(realtimeNs() / 1_000_000n) - Date.now())).toBeLessThan(1000);
});
