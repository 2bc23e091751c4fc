/** Health as a state machine: every transition that docker's rules have. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { Health } from "../contract/container.ts";
import { type HealthPlan, healthAfter, pauseBeforeCheck, planHealth, startingHealth } from "./health.ts";

const plan: HealthPlan = {
  command: ["true"],
  intervalMs: 30_000,
  timeoutMs: 30_000,
  startPeriodMs: 0,
  startIntervalMs: 5000,
  retries: 3,
};

/** Health after checks with these exit codes, the first at `atMs`. */
function after(
  codes: readonly number[],
  settings: Partial<HealthPlan> = {},
  atMs = 0,
  from = startingHealth(),
): Health {
  return codes.reduce<Health>(
    (health, exitCode) =>
      healthAfter(health, { ...plan, ...settings }, { exitCode, output: `${exitCode}`, beganMs: atMs }),
    from,
  );
}

describe("a check's plan", () => {
  test("has docker's numbers where none are given", () => {
    expect(planHealth({ test: ["CMD", "true"] })).toEqual(plan);
    expect(planHealth({ test: ["CMD-SHELL", "test -e /ok"], intervalMs: 7, retries: 9 })).toEqual({
      ...plan,
      command: ["/bin/sh", "-c", "test -e /ok"],
      intervalMs: 7,
      retries: 9,
    });
  });

  test("is none without a test", () => {
    expect(planHealth(undefined)).toBeUndefined();
    expect(planHealth({ test: ["NONE"] })).toBeUndefined();
    expect(planHealth({ intervalMs: 5 })).toBeUndefined();
  });

  test("refuses what says nothing", () => {
    for (const words of [["CMD"], ["CMD-SHELL"], ["CMD-SHELL", "a", "b"], ["true"]]) {
      expect(() => planHealth({ test: words })).toThrow("Cannot check a VM's health");
    }
  });
});

describe("health", () => {
  test("is healthy with the first success", () => {
    expect(after([0])).toEqual({ status: "healthy", failingStreak: 0, lastExitCode: 0, lastOutput: "0" });
    expect(after([1, 1, 0])).toMatchObject({ status: "healthy", failingStreak: 0 });
  });

  test("is unhealthy after so many failures in a row, and not before", () => {
    expect(after([1, 1])).toMatchObject({ status: "starting", failingStreak: 2 });
    expect(after([1, -1, 2])).toEqual({ status: "unhealthy", failingStreak: 3, lastExitCode: 2, lastOutput: "2" });
    expect(after([0, 1, 1])).toMatchObject({ status: "healthy", failingStreak: 2 });
    expect(after([0, 1, 1, 0, 1, 1])).toMatchObject({ status: "healthy", failingStreak: 2 });
    expect(after([0, 1, 1, 1])).toMatchObject({ status: "unhealthy", failingStreak: 3 });
  });

  test("comes back from unhealthy with one success", () => {
    expect(after([1, 1, 1, 1, 0])).toMatchObject({ status: "healthy", failingStreak: 0 });
  });

  test("does not count failures in the start period until a check has succeeded", () => {
    const settings = { startPeriodMs: 1000 };
    expect(after([1, 1, 1, 1, 1], settings, 999)).toMatchObject({
      status: "starting",
      failingStreak: 0,
      lastExitCode: 1,
    });
    expect(after([1, 1, 1], settings, 1000)).toMatchObject({ status: "unhealthy" });
    expect(after([0, 1, 1, 1], settings, 500)).toMatchObject({ status: "unhealthy", failingStreak: 3 });
  });

  test("is healthy exactly if the last check succeeded, or fewer than the retries failed since one did", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 2 })), fc.integer({ min: 1, max: 5 }), (codes, retries) => {
        const { status } = after(codes, { retries });
        const lastSuccess = codes.lastIndexOf(0);
        const failures = codes.length - 1 - lastSuccess;
        const expected = failures >= retries ? "unhealthy" : lastSuccess < 0 ? "starting" : "healthy";
        expect(status).toBe(expected);
      }),
    );
  });
});

test("checks come faster in the start period, until one has succeeded", () => {
  const settings = { ...plan, startPeriodMs: 60_000 };
  expect(pauseBeforeCheck(startingHealth(), settings, 59_999)).toBe(5000);
  expect(pauseBeforeCheck(startingHealth(), settings, 60_000)).toBe(30_000);
  expect(pauseBeforeCheck(after([0]), settings, 10)).toBe(30_000);
  expect(pauseBeforeCheck(startingHealth(), plan, 0)).toBe(30_000);
});
