/** Health of a VM from the results of its checks, by docker's rules; and when the next check is. Pure: a test needs no clock. */
import type { Health, HealthCheck } from "../contract/container.ts";
import { MayflyError } from "../contract/errors.ts";

/** Most bytes of a check's output that are kept: the first ones. */
export const OUTPUT_LIMIT_BYTES = 4096;
/** Exit code of a check that was not done in time, or could not be started. */
export const NO_EXIT_CODE = -1;

/** Docker's defaults. */
const DEFAULTS = { intervalMs: 30_000, timeoutMs: 30_000, startPeriodMs: 0, startIntervalMs: 5_000, retries: 3 };

/** A check with all of its numbers; durations in milliseconds. */
export interface HealthPlan {
  /** What is run in the VM. */
  command: readonly string[];
  intervalMs: number;
  timeoutMs: number;
  /** From the start: failures in it do not count while no check has succeeded. */
  startPeriodMs: number;
  /** Instead of the interval in that time, while no check has succeeded. */
  startIntervalMs: number;
  retries: number;
}

/** What came of one check. */
export interface CheckResult {
  /** 0: healthy. {@link NO_EXIT_CODE} if there is none. */
  exitCode: number;
  output: string;
  /** When it began, in milliseconds since the main process started. */
  beganMs: number;
}

/** The plan of a check; undefined for none. @throws `invalid_argument` for a test that says nothing. */
export function planHealth(check: HealthCheck | undefined): HealthPlan | undefined {
  const [kind, ...words] = check?.test ?? [];
  if (check === undefined || kind === undefined || kind === "NONE") return undefined;
  const { intervalMs, timeoutMs, startPeriodMs, startIntervalMs, retries } = check;
  return {
    command: commandOf(kind, words),
    intervalMs: intervalMs ?? DEFAULTS.intervalMs,
    timeoutMs: timeoutMs ?? DEFAULTS.timeoutMs,
    startPeriodMs: startPeriodMs ?? DEFAULTS.startPeriodMs,
    startIntervalMs: startIntervalMs ?? DEFAULTS.startIntervalMs,
    retries: retries ?? DEFAULTS.retries,
  };
}

function commandOf(kind: string, words: readonly string[]): string[] {
  if (kind === "CMD" && words.length > 0) return [...words];
  if (kind === "CMD-SHELL" && words.length === 1) return ["/bin/sh", "-c", ...words];
  const test = JSON.stringify([kind, ...words]);
  throw new MayflyError(
    "invalid_argument",
    `Cannot check a VM's health by ${test}: it must be ["CMD", PROGRAM, ...], ["CMD-SHELL", TEXT] or ["NONE"]`,
  );
}

/** Health before the first check of a main process. */
export function startingHealth(): Health {
  return { status: "starting", failingStreak: 0, lastExitCode: null, lastOutput: "" };
}

/** Health after a check. */
export function healthAfter(health: Health, plan: HealthPlan, { exitCode, output, beganMs }: CheckResult): Health {
  const said = { lastExitCode: exitCode, lastOutput: output };
  if (exitCode === 0) return { status: "healthy", failingStreak: 0, ...said };
  const excused = health.status === "starting" && beganMs < plan.startPeriodMs;
  const failingStreak = health.failingStreak + (excused ? 0 : 1);
  const failed = !excused && failingStreak >= plan.retries;
  return { status: failed ? "unhealthy" : health.status, failingStreak, ...said };
}

/** Milliseconds from the end of a check (or from the start) to the next one. */
export function pauseBeforeCheck(health: Health, plan: HealthPlan, sinceStartMs: number): number {
  const early = health.status === "starting" && sinceStartMs < plan.startPeriodMs;
  return early ? plan.startIntervalMs : plan.intervalMs;
}
