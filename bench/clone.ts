/** The scenario `clone`: how fast VMs start from their parent, what they take, and what else there is on this machine. */
import { Deadline } from "../src/sys/deadline.ts";
import { measureBurst } from "./burst.ts";
import { currentCommit, currentLoad, type HostFacts, hostFacts } from "./host-facts.ts";
import { addRun, runEcho } from "./measured-run.ts";
import { type MemoryCase, measureMemory } from "./memory.ts";
import type { BenchOptions } from "./options.ts";
import { atFixedRate, pause } from "./pace.ts";
import { type Listener, prepare, WARM_POOL } from "./prepare.ts";
import { DAEMON_VMS } from "./promises.ts";
import { type Row, Samples } from "./samples.ts";
import { type Bench, takersOf } from "./subjects.ts";
import { chooseWarmRate } from "./warm-rate.ts";

/** Rounds whose samples are thrown away: page cache, lazily made things. */
const WARM_UP_ROUNDS = 2;
/** Between two samples, so that none pays for the end of the one before. */
const GAP_MS = 100;
const SETTLE_LIMIT_MS = 60_000;
/** The requests at a fixed rate come in so many parts, spread over the rounds. */
const PARTS = 10;
/** VMs whose memory is measured where their number decides nothing. */
const MEMORY_VMS = 8;

/** What `--json` prints. */
export interface BenchReport {
  scenario: "clone";
  host: HostFacts & {
    /** Version of each peer, and how its command line differs from the plain one, if it does. */
    peers: Record<string, { version: string; note: string | null }>;
    warmRequestsPerSecond: number | null;
  };
  commit: string | null;
  rows: Row[];
}

/** Runs the scenario. @throws MayflyError when something cannot be measured that has to be there, and `cancelled`. */
export async function runCloneScenario(
  options: BenchOptions,
  listener: Listener,
): Promise<{ report: BenchReport; samples: Samples }> {
  const loadAverage = currentLoad();
  const samples = new Samples();
  await using resources = new AsyncDisposableStack();
  const { bench, info } = await prepare(options, samples, listener, resources);
  const requestsPerSecond = await measureRounds(bench, samples, listener);
  listener.progress(`${options.concurrency} clones one after another, then at once`);
  await settle(bench);
  await measureBurst(bench.warm.client, options.concurrency, samples, bench.signal, () => settle(bench));
  listener.progress("memory of idle VMs");
  await measureAllMemory(bench, samples);
  const peers = Object.fromEntries(
    bench.peers.map(({ name, version, note }) => [name, { version, note: note ?? null }]),
  );
  const host = { ...(await hostFacts(info, loadAverage)), peers, warmRequestsPerSecond: requestsPerSecond ?? null };
  return { report: { scenario: "clone", host, commit: await currentCommit(), rows: samples.rows() }, samples };
}

/** Every subject once in each round, in an order that shifts, and the requests at a fixed rate spread among the rounds. */
async function measureRounds(bench: Bench, samples: Samples, listener: Listener): Promise<number | undefined> {
  const { options, signal } = bench;
  const takers = takersOf(bench);
  const runRound = async (round: number, into: Samples) => {
    for (let index = 0; index < takers.length; index += 1) {
      await settle(bench);
      await takers[(round + index) % takers.length]?.take(into);
    }
  };
  listener.progress("warming up");
  for (let round = 0; round < WARM_UP_ROUNDS; round += 1) await runRound(round, new Samples());
  const requestsPerSecond = options.pool ? await chooseRate(bench, samples, listener) : undefined;
  let [asked, misses] = [0, 0];
  const request = async () => {
    if (!(await takeWarm(bench, samples))) misses += 1;
  };
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
  return requestsPerSecond;
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
async function settle({ warm, blocked, signal }: Bench): Promise<void> {
  const deadline = Deadline.after(SETTLE_LIMIT_MS, signal);
  await Promise.all([warm.pools.untilFull(deadline), blocked?.pools.untilFull(deadline)]);
  await pause(GAP_MS, signal);
}

async function measureAllMemory(bench: Bench, samples: Samples): Promise<void> {
  const { warm, blocked, signal } = bench;
  const few = { count: MEMORY_VMS, whole: false };
  const cases: MemoryCase[] = [
    { daemon: warm, subject: "clone", request: { pool: false }, count: DAEMON_VMS, whole: true },
    ...(blocked === undefined
      ? []
      : ([
          { daemon: blocked, subject: "clone-pool", request: {}, ...few },
          { daemon: warm, subject: "clone-warm", request: {}, ...few },
        ] as const)),
  ];
  for (const memory of cases) {
    await settle(bench);
    await measureMemory(memory, samples, signal);
  }
}
