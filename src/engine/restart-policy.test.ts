/** Restart policies: who is started again, and after which pause. */
import { describe, expect, test } from "bun:test";
import type { RestartPolicy } from "../contract/container.ts";
import { MayflyError } from "../contract/errors.ts";
import { checkPolicy, type EndedRun, outlivesHost, pauseBeforeRestart } from "./restart-policy.ts";

const first: EndedRun = { exitCode: 1, ranMs: 5, restartCount: 0, lastPauseMs: 0 };
const pause = (policy: RestartPolicy, ended: Partial<EndedRun> = {}) =>
  pauseBeforeRestart(policy, { ...first, ...ended });

describe("who is started again", () => {
  test("nobody without a policy", () => {
    expect(pause({ name: "no" })).toBeUndefined();
    expect(pause({ name: "no" }, { exitCode: 0 })).toBeUndefined();
  });

  test("always and unless-stopped whatever the exit code", () => {
    for (const name of ["always", "unless-stopped"] as const) {
      expect(pause({ name }, { exitCode: 0 })).toBe(100);
      expect(pause({ name }, { exitCode: 255, restartCount: 1_000_000 })).toBe(100);
    }
  });

  test("on-failure after a failure only, so often as it may", () => {
    expect(pause({ name: "on-failure" }, { exitCode: 0 })).toBeUndefined();
    expect(pause({ name: "on-failure" }, { restartCount: 1000 })).toBe(100);
    expect(pause({ name: "on-failure", maximumRetries: 0 }, { restartCount: 1000 })).toBe(100);
    expect(pause({ name: "on-failure", maximumRetries: 3 }, { restartCount: 2 })).toBe(100);
    expect(pause({ name: "on-failure", maximumRetries: 3 }, { restartCount: 3 })).toBeUndefined();
  });

  test("those that outlive their host", () => {
    const names = ["no", "on-failure", "always", "unless-stopped"] as const;
    expect(names.filter((name) => outlivesHost({ name }))).toEqual(["always", "unless-stopped"]);
  });
});

describe("the pause", () => {
  test("doubles from 100 ms to a minute", () => {
    const pauses: number[] = [];
    let lastPauseMs = 0;
    for (let count = 0; count < 14; count++) {
      lastPauseMs = pause({ name: "always" }, { lastPauseMs }) ?? 0;
      pauses.push(lastPauseMs);
    }
    const doubled = [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200];
    expect(pauses).toEqual([...doubled, 60_000, 60_000, 60_000, 60_000]);
  });

  test("begins anew after ten seconds of running", () => {
    expect(pause({ name: "always" }, { lastPauseMs: 6400, ranMs: 9999 })).toBe(12_800);
    expect(pause({ name: "always" }, { lastPauseMs: 6400, ranMs: 10_000 })).toBe(100);
  });
});

test("contradictions are refused", () => {
  expect(() => checkPolicy({ name: "always" }, true)).toThrow(MayflyError);
  expect(() => checkPolicy({ name: "always", maximumRetries: 3 }, false)).toThrow("only on-failure");
  expect(() => checkPolicy({ name: "no" }, true)).not.toThrow();
  expect(() => checkPolicy(undefined, true)).not.toThrow();
  expect(() => checkPolicy({ name: "on-failure", maximumRetries: 3 }, false)).not.toThrow();
});
