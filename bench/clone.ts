/** The scenario `clone`: how fast VMs start from their parent, what they take, and what else there is on this machine. */
import { measureBurst } from "./burst.ts";
import { currentCommit, currentLoad, type HostFacts, hostFacts } from "./host-facts.ts";
import { type MemoryCase, measureMemory } from "./memory.ts";
import type { BenchOptions } from "./options.ts";
import type { Outcome } from "./outcome.ts";
import { type Listener, prepare } from "./prepare.ts";
import { DAEMON_VMS, PROMISES } from "./promises.ts";
import { toldOfClone } from "./report.ts";
import { measureRounds, settle } from "./rounds.ts";
import { type Row, Samples } from "./samples.ts";
import type { Bench } from "./subjects.ts";

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
export async function run(options: BenchOptions, listener: Listener): Promise<Outcome<BenchReport>> {
  const loadAverage = currentLoad();
  const samples = new Samples();
  await using resources = new AsyncDisposableStack();
  const { bench, info } = await prepare(options, samples, listener, resources);
  const { requestsPerSecond, failures } = await measureRounds(bench, samples, listener);
  listener.progress(`${options.concurrency} clones one after another, then at once`);
  await settle(bench);
  const told = { settle: () => settle(bench), note: listener.note };
  await measureBurst(bench.warm.client, options.concurrency, samples, bench.signal, told);
  listener.progress("memory of idle VMs");
  await measureAllMemory(bench, samples);
  const peers = Object.fromEntries(
    bench.peers.map(({ name, version, note }) => [name, { version, note: note ?? null }]),
  );
  const host = { ...(await hostFacts(info, loadAverage)), peers, warmRequestsPerSecond: requestsPerSecond ?? null };
  const report: BenchReport = { scenario: "clone", host, commit: await currentCommit(), rows: samples.rows() };
  return { report, told: toldOfClone(report), samples, failures, promises: PROMISES };
}

async function measureAllMemory(bench: Bench, samples: Samples): Promise<void> {
  const { warm, blocked, copies, signal } = bench;
  const few = { count: MEMORY_VMS, whole: false };
  const cases: MemoryCase[] = [
    { daemon: warm, subject: "clone", request: { pool: false }, count: DAEMON_VMS, whole: true },
    ...(copies === undefined ? [] : ([{ daemon: copies, subject: "clone-copy", request: {}, ...few }] as const)),
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
