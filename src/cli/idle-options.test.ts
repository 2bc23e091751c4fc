import { describe, expect, test } from "bun:test";
import { idleRequest } from "./idle-options.ts";

const NONE = { idle: undefined, "pause-after": undefined, "refresh-after": undefined, "suspend-after": undefined };

describe("idle options", () => {
  test("ask for nothing, for a policy, and for its times", () => {
    expect(idleRequest(NONE)).toBeUndefined();
    expect(idleRequest({ ...NONE, idle: "never" })).toEqual({ policy: "never" });
    expect(idleRequest({ ...NONE, idle: "pause" })).toEqual({ policy: "pause" });
    const all = { idle: "suspend", "pause-after": "250ms", "refresh-after": "1m", "suspend-after": "2h" };
    expect(idleRequest(all)).toEqual({
      ...{ policy: "suspend", pauseAfterMs: 250, refreshAfterMs: 60_000, suspendAfterMs: 7_200_000 },
    });
  });

  test("that make no sense are refused with what would", () => {
    expect(() => idleRequest({ ...NONE, idle: "sleep" })).toThrow('--idle is "sleep"; it takes never, pause, suspend');
    expect(() => idleRequest({ ...NONE, "pause-after": "1s" })).toThrow("--pause-after needs --idle pause or");
    expect(() => idleRequest({ ...NONE, idle: "never", "refresh-after": "1s" })).toThrow("--refresh-after needs");
    expect(() => idleRequest({ ...NONE, idle: "pause", "suspend-after": "1m" })).toThrow("needs --idle suspend");
    expect(() => idleRequest({ ...NONE, idle: "pause", "pause-after": "soon" })).toThrow("--pause-after");
  });
});
