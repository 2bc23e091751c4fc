/** The rounds of a run: every subject in turn, and requests for warm clones at a fixed rate among them. */
import { Deadline } from "../src/sys/deadline.ts";
import { addRun, runEcho } from "./measured-run.ts";
import { atFixedRate, pause } from "./pace.ts";
import { type Listener, WARM_POOL } from "./prepare.ts";
import { Samples } from "./samples.ts";
import { type Bench, takersOf } from "./subjects.ts";
import { Failures, takeTurns } from "./turns.ts";
import { chooseWarmRate } from "./warm-rate.ts";

/** Rounds whose samples are thrown away: page cache, lazily made things. */
const WARM_UP_ROUNDS = 2;
/** Between two samples, so that none pays for the end of the one before. */
const GAP_MS = 100;
const SETTLE_LIMIT_MS = 60_000;
/** The requests at a fixed rate come in so many parts, spread over the rounds. */
const PARTS = 10;

/** What the rounds say besides their samples. */
export interface RoundsResult {
  requestsPerSecond: number | undefined;
  /** How often something could not be measured. */
  failures: number;
}

/** Every subject once in each round, in an order that shifts, and the requests at a fixed rate spread among the rounds. */
export async function measureRounds(bench: Bench, samples: Samples, listener: Listener): Promise<RoundsResult> {
  const { options, signal } = bench;
  const takers = takersOf(bench);
  const failures = new Failures(listener);
  const runRound = (round: number, into: Samples) =>
    takeTurns(takers, round, into, { failures, settle: () => settle(bench) });
  listener.progress("warming up");
  for (let round = 0; round < WARM_UP_ROUNDS; round += 1) await runRound(round, new Samples());
  const requestsPerSecond = options.pool ? await chooseRate(bench, samples, listener) : undefined;
  let [asked, misses] = [0, 0];
  const request = () =>
    failures.watch("clone-warm", async () => {
      if (!(await takeWarm(bench, samples))) misses += 1;
    });
  for (let round = 0; round < options.runs; round += 1) {
    listener.progress(`round ${round + 1} of ${options.runs}`);
    await runRound(round, samples);
    const part = Math.floor(((round + 1) * PARTS) / options.runs) / PARTS;
    const count = Math.round(part * options.requests) - asked;
    if (requestsPerSecond === undefined || count === 0) continue;
    listener.progress(`round ${round + 1} of ${options.runs}: ${count} requests, ${requestsPerSecond} a second`);
    await settle(bench);
    await atFixedRate(count, requestsPerSecond, request, signal);
    asked += count;
  }
  if (requestsPerSecond !== undefined) samples.add("clone-warm", "misses", "count", misses);
  return { requestsPerSecond, failures: failures.count };
}

async function chooseRate(bench: Bench, samples: Samples, listener: Listener): Promise<number> {
  listener.progress("measuring how fast the pool refills");
  const { refillPerSecond, requestsPerSecond } = await chooseWarmRate(bench.warm, WARM_POOL, bench.signal);
  const chosen = bench.options.rate ?? requestsPerSecond;
  samples.add("clone-warm", "refill-rate", "per-second", refillPerSecond);
  samples.add("clone-warm", "request-rate", "per-second", chosen);
  return chosen;
}

/** One request; where the pool was empty, it counts with the time that it took. @returns whether it got a warm clone. */
async function takeWarm(bench: Bench, samples: Samples): Promise<boolean> {
  const run = await runEcho(bench.warm.transport, {}, Deadline.after(SETTLE_LIMIT_MS, bench.signal));
  addRun(samples, "clone-warm", run);
  return run.vm.clone.path === "warm";
}

/** Waits until all pools are full and the sample before has been cleaned up. */
export async function settle({ warm, blocked, copies, signal }: Bench): Promise<void> {
  const deadline = Deadline.after(SETTLE_LIMIT_MS, signal);
  await Promise.all([
    warm.pools.untilFull(deadline),
    blocked?.pools.untilFull(deadline),
    copies?.pools.untilFull(deadline),
  ]);
  await pause(GAP_MS, signal);
}
