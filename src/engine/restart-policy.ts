/** When a VM whose main process has ended starts again, by docker's rules. Pure: a test needs no clock. */
import type { RestartPolicy } from "../contract/container.ts";
import { MayflyError } from "../contract/errors.ts";

/** Pauses before starts, in milliseconds: the first after an end, doubled with each further one up to the longest. */
export interface RestartPauses {
  first: number;
  longest: number;
}

/** Docker's. */
export const DEFAULT_PAUSES_MS: RestartPauses = { first: 100, longest: 60_000 };
/** A process that has run so long counts as started well: the pause begins anew. */
export const WELL_AFTER_MS = 10_000;

/** How something ended that may be started again. */
export interface EndedRun {
  /** Exit code of the main process; of a VM that failed any but 0. */
  exitCode: number;
  /** Milliseconds for which it ran. */
  ranMs: number;
  /** How often it has been started again before. */
  restartCount: number;
  /** Pause before its last start; 0 if that was the first. */
  lastPauseMs: number;
}

/**
 * The pause before the next start.
 * @returns milliseconds, or undefined when it is not to be started again.
 */
export function pauseBeforeRestart(
  policy: RestartPolicy,
  ended: EndedRun,
  { first, longest }: RestartPauses = DEFAULT_PAUSES_MS,
): number | undefined {
  if (!wantsRestart(policy, ended)) return undefined;
  if (ended.lastPauseMs === 0 || ended.ranMs >= WELL_AFTER_MS) return first;
  return Math.min(2 * ended.lastPauseMs, longest);
}

function wantsRestart(policy: RestartPolicy, { exitCode, restartCount }: EndedRun): boolean {
  if (policy.name === "always" || policy.name === "unless-stopped") return true;
  if (policy.name === "no" || exitCode === 0) return false;
  const most = policy.maximumRetries ?? 0;
  return most === 0 || restartCount < most;
}

/** Whether a VM that ran when its host went down is started when the host is up again. */
export function outlivesHost(policy: RestartPolicy): boolean {
  return policy.name === "always" || policy.name === "unless-stopped";
}

/** @throws `invalid_argument` for a policy that contradicts itself or the rest of the request, as docker refuses it. */
export function checkPolicy(policy: RestartPolicy | undefined, autoRemove: boolean): void {
  if (policy === undefined || policy.name === "no") return;
  if (autoRemove) {
    throw new MayflyError(
      "invalid_argument",
      `Cannot remove a VM when it ends (--rm) and start it again (--restart ${policy.name}): one of both`,
    );
  }
  if (policy.maximumRetries !== undefined && policy.name !== "on-failure") {
    throw new MayflyError(
      "invalid_argument",
      `Cannot limit the restarts of the policy ${policy.name}: only on-failure takes a number of retries`,
    );
  }
}
