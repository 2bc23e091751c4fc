/** The scenario `density`: what one idle VM of many costs, beside containers, each crowd in one control group with all that keeps it. */
import { chmod, mkdtemp } from "node:fs/promises";
import { MayflyError } from "../../src/contract/errors.ts";
import { stateDirectory } from "../../src/sys/directories.ts";
import { isRoot, removePath, writeText } from "../../src/sys/paths.ts";
import { installTools } from "../app/image.ts";
import { type Panel, plotSvg } from "../fork/plot.ts";
import { currentCommit, currentLoad, type HostFacts, hostFacts } from "../host-facts.ts";
import type { Outcome } from "../outcome.ts";
import { type Listener, takeArtifacts } from "../prepare.ts";
import { densityPromises } from "../promises.ts";
import { toldOfDensity } from "../report.ts";
import { type Row, Samples } from "../samples.ts";
import { Failures } from "../turns.ts";
import { containerdKind } from "./containerd.ts";
import type { CrowdKind } from "./crowd.ts";
import { type Curve, measureCurve, panelsOf } from "./curves.ts";
import { prepareVms, type VmGround, vmKind } from "./mayfly.ts";
import { measureCrowd } from "./measure.ts";
import { missingFor } from "./offered.ts";
import type { DensityOptions, DensityPeer } from "./options.ts";
import { podmanKind } from "./podman.ts";

/** On a disk wherever there is one: a template's holes would be filled on tmpfs. */
const PARENT_DIRECTORY = "/var/tmp";
/** Debian's programs that a peer is made of; package and program have the same name. */
const TOOLS: Readonly<Record<DensityPeer, readonly string[]>> = {
  containerd: ["containerd", "runc"],
  podman: ["podman", "crun"],
};

/** What `--json` prints. */
export interface DensityReport {
  scenario: "density";
  vms: number;
  concurrency: number;
  idleSeconds: number;
  host: HostFacts & { peers: Record<string, { version: string; note: string | null }> };
  commit: string | null;
  rows: Row[];
  /** Memory and start time by number, as they are drawn; empty without `--plot`. */
  curves: Panel[];
}

/** Runs the scenario. @throws MayflyError when something cannot be measured that has to be there, and `cancelled`. */
export async function run(options: DensityOptions, listener: Listener): Promise<Outcome<DensityReport>> {
  if (!isRoot()) throw new MayflyError("root_required", "Cannot run the benchmark: its daemons must run as root");
  const loadAverage = currentLoad();
  const samples = new Samples();
  const failures = new Failures(listener);
  await using resources = new AsyncDisposableStack();
  const artifactsOf = stateDirectory();
  await takeArtifacts(options, artifactsOf, listener.signal);
  const directory = await mkdtemp(`${PARENT_DIRECTORY}/mayfly-bench-`);
  resources.defer(() => removePath(directory));
  // QEMU runs as a user of its own and opens its files by their paths.
  await chmod(directory, 0o711);
  const { ground, info } = await prepareVms(directory, artifactsOf, listener, resources);
  const kinds = [...vmKinds(options, ground, listener), ...(await peerKinds(options, directory, listener))];
  for (const kind of kinds) await failures.watch(kind.subject, () => measure(kind, options, samples, listener));
  const curves: Curve[] = [];
  if (options.plotPath !== undefined) {
    for (const kind of kinds.filter(({ subject }) => subject !== "mayfly-suspended")) {
      await failures.watch(kind.subject, async () => void curves.push(await draw(kind, options, listener)));
    }
  }
  const panels = panelsOf(curves);
  if (options.plotPath !== undefined && panels.length > 0) await writeText(options.plotPath, plotSvg(panels));
  const peers = Object.fromEntries(
    kinds.flatMap((kind) => {
      const facts = kind.facts();
      return facts === undefined ? [] : [[kind.subject, facts] as const];
    }),
  );
  const { vms, concurrency, idleSeconds } = options;
  const head = { scenario: "density", vms, concurrency, idleSeconds } as const;
  const host = { ...(await hostFacts(info, loadAverage)), peers };
  const report: DensityReport = { ...head, host, commit: await currentCommit(), rows: samples.rows(), curves: panels };
  const promises = densityPromises(vms);
  return { report, told: toldOfDensity(report), samples, failures: failures.count, promises };
}

function vmKinds({ kinds }: DensityOptions, ground: VmGround, { note }: Listener): CrowdKind[] {
  return kinds.flatMap((kind) => {
    const missing = missingFor(kind, ground.accelerator);
    if (missing === undefined) return [vmKind(kind, ground)];
    note(`${kind} is left out: ${missing}`);
    return [];
  });
}

async function peerKinds({ peers }: DensityOptions, directory: string, listener: Listener): Promise<CrowdKind[]> {
  const kinds: CrowdKind[] = [];
  for (const peer of peers) {
    try {
      await installTools(TOOLS[peer], listener);
      const own = `${directory}/${peer}`;
      kinds.push(await (peer === "containerd" ? containerdKind(own) : podmanKind(own)));
    } catch (error) {
      if (listener.signal.aborted) throw error;
      listener.note(`${peer} is left out: ${error instanceof Error ? error.message : error}`);
    }
  }
  return kinds;
}

async function measure(
  kind: CrowdKind,
  { vms: count, concurrency, idleSeconds }: DensityOptions,
  samples: Samples,
  listener: Listener,
): Promise<void> {
  const { subject } = kind;
  await using resources = new AsyncDisposableStack();
  listener.progress(`preparing ${subject}`);
  const crowd = await kind.open(resources, listener.signal);
  const note = kind.facts()?.note;
  if (note !== undefined && note !== null) listener.note(`${subject} is run ${note}: it does not start otherwise here`);
  await measureCrowd({ crowd, subject, count, concurrency, idleSeconds }, samples, listener);
}

async function draw(kind: CrowdKind, { vms: count, concurrency }: DensityOptions, listener: Listener): Promise<Curve> {
  await using resources = new AsyncDisposableStack();
  const crowd = await kind.open(resources, listener.signal);
  return await measureCurve(kind.subject, crowd, { count, concurrency }, listener);
}
