/** The scenario `fork`: what it costs a running VM to be forked, checkpointed, suspended, and how soon what comes of it runs; beside QEMU's own ways. */
import { MayflyError } from "../../src/contract/errors.ts";
import { isRoot, writeText } from "../../src/sys/paths.ts";
import { currentCommit, currentLoad, type HostFacts, hostFacts } from "../host-facts.ts";
import type { Outcome } from "../outcome.ts";
import type { Listener } from "../prepare.ts";
import { forkPromises } from "../promises.ts";
import { toldOfFork } from "../report.ts";
import { type Row, Samples } from "../samples.ts";
import { Failures, takeTurns } from "../turns.ts";
import { measureCurves } from "./curves.ts";
import { DEFAULT_MIB, type Ground, prepareGround } from "./ground.ts";
import { measureChildren } from "./memory.ts";
import type { ForkOptions } from "./options.ts";
import { type Panel, plotSvg } from "./plot.ts";
import { plainParent, qemuTakers } from "./qemu-takers.ts";
import { type ForkBench, mayflyTakers, type Parents } from "./subjects.ts";
import { dirty, echoingVm, guestFor, idleVm } from "./vms.ts";

const WARM_UP_ROUNDS = 2;

/** What `--json` prints. */
export interface ForkReport {
  scenario: "fork";
  depth: number;
  children: number;
  dirtyMiB: number;
  host: HostFacts;
  commit: string | null;
  rows: Row[];
  /** Costs by size, as they are drawn; empty without `--plot`. */
  curves: Panel[];
}

/** Runs the scenario. @throws MayflyError when something cannot be measured that has to be there, and `cancelled`. */
export async function run(options: ForkOptions, listener: Listener): Promise<Outcome<ForkReport>> {
  if (!isRoot()) throw new MayflyError("root_required", "Cannot run the benchmark: its daemon must run as root");
  const { signal, progress } = listener;
  const loadAverage = currentLoad();
  const samples = new Samples();
  const failures = new Failures(listener);
  await using resources = new AsyncDisposableStack();
  const { ground, info } = await prepareGround(options.children, listener, resources);
  const bench = await prepareBench(ground, options, listener);
  const takers = mayflyTakers(bench);
  if (options.qemu) {
    progress("booting a guest with memory of its own");
    const small = { memoryMiB: DEFAULT_MIB, dirtyMiB: 0 };
    const plain = await plainParent(ground.host, small, ground.statesDirectory, signal);
    resources.use(plain.vm);
    takers.push(...qemuTakers(plain, ""));
  }
  const turns = { failures, settle: () => ground.settle() };
  progress("warming up");
  for (let round = 0; round < WARM_UP_ROUNDS; round += 1) await takeTurns(takers, round, new Samples(), turns);
  for (let round = 0; round < options.runs; round += 1) {
    progress(`round ${round + 1} of ${options.runs}`);
    await takeTurns(takers, round, samples, turns);
  }
  progress("memory of idle children");
  await failures.watch("memory", () => measureChildren(bench, samples));
  const curves = await drawCurves(ground, options, listener, failures);
  const { depth, children, dirtyMiB } = options;
  const head = { scenario: "fork", depth, children, dirtyMiB, host: await hostFacts(info, loadAverage) } as const;
  const report: ForkReport = { ...head, commit: await currentCommit(), rows: samples.rows(), curves };
  const promises = forkPromises();
  return { report, told: toldOfFork(report), samples, failures: failures.count, promises };
}

async function drawCurves(
  ground: Ground,
  options: ForkOptions,
  listener: Listener,
  failures: Failures,
): Promise<Panel[]> {
  if (options.plotPath === undefined) return [];
  const panels = await measureCurves(ground, options, listener, failures);
  await writeText(options.plotPath, plotSvg(panels));
  return panels;
}

async function prepareBench(
  { daemon }: Ground,
  { depth, children, dirtyMiB }: ForkOptions,
  { signal, progress }: Listener,
): Promise<ForkBench> {
  const { client } = daemon;
  const onProgress = (step: string) => progress(`template: ${step}`);
  await client.templates.build({}, { onProgress, signal });
  const dirtyGuestMiB = guestFor(dirtyMiB);
  const template = await client.templates.build({ memoryBytes: dirtyGuestMiB * 2 ** 20 }, { onProgress, signal });
  if (dirtyGuestMiB !== DEFAULT_MIB) await client.templates.pool(template.id, { warm: 0, blocked: 1 }, { signal });
  progress("starting VMs to be forked");
  const idle = await idleVm(client, DEFAULT_MIB, signal);
  const written = await idleVm(client, dirtyGuestMiB, signal);
  await dirty(client, written.id, dirtyMiB, signal);
  let deepest = idle.id;
  for (let generation = 1; generation < depth; generation += 1) {
    [deepest = ""] = (await client.vms.fork(deepest, {}, { signal })).vmIds;
  }
  const echoing = await echoingVm(client, signal);
  const parents: Parents = { idle: idle.id, dirty: written.id, deepest, echoing: echoing.id };
  return { daemon, signal, parents, depth, children, dirtyMiB };
}
