/** Requests at a fixed rate that the pool can follow: how a warm clone does while others are being prepared. */
import { Deadline, nowMs } from "../src/sys/deadline.ts";
import { runEcho } from "./measured-run.ts";
import type { OwnDaemon } from "./own-daemon.ts";

const RUN_LIMIT_MS = 60_000;
/** Share of the measured refill rate at which requests come: the rest is for what they run, their clients, and the machine's noise. */
const LOAD = 0.25;
const MEASUREMENTS = 2;

/** How fast a daemon's pool refills, and the rate of requests chosen from it; both a second. */
export interface WarmRate {
  refillPerSecond: number;
  requestsPerSecond: number;
}

/**
 * Empties the pool by requests, one after another, and takes the time until it is full again: `size` clones were taken and made
 * again in it. The slower of two measurements counts, and requests come at a quarter of it.
 */
export async function chooseWarmRate(daemon: OwnDaemon, size: number, signal: AbortSignal): Promise<WarmRate> {
  let refillPerSecond = Number.POSITIVE_INFINITY;
  for (let round = 0; round < MEASUREMENTS; round += 1) {
    const deadline = Deadline.after(RUN_LIMIT_MS, signal);
    await daemon.pools.untilFull(deadline);
    const startedMs = nowMs();
    for (let index = 0; index < size; index += 1) await runEcho(daemon.transport, {}, deadline);
    await daemon.pools.untilFull(deadline);
    refillPerSecond = Math.min(refillPerSecond, (size * 1000) / (nowMs() - startedMs));
  }
  return { refillPerSecond, requestsPerSecond: roundRate(refillPerSecond * LOAD) };
}

/** Down to a tenth, so that the rate of a report is a number to repeat. */
function roundRate(perSecond: number): number {
  return Math.max(0.1, Math.floor(perSecond * 10) / 10);
}
