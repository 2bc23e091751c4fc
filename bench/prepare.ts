/** Brings up what a run needs: directory, daemons with a template, peers. All of it is undone with the resources. */
import { chmod, mkdtemp } from "node:fs/promises";
import type { SystemInfo } from "../src/contract/api.ts";
import { MayflyError } from "../src/contract/errors.ts";
import type { PoolSizes } from "../src/engine/config.ts";
import { loadArtifacts } from "../src/setup/artifacts.ts";
import { kernelAside } from "../src/setup/kernel-choice.ts";
import { qemuAside } from "../src/setup/qemu-store.ts";
import { stateDirectory } from "../src/sys/directories.ts";
import { isRoot, removePath } from "../src/sys/paths.ts";
import { ColdBoots } from "./boot.ts";
import { findBusybox } from "./bundle.ts";
import { ECHO } from "./measured-run.ts";
import type { BenchOptions } from "./options.ts";
import { linkTemplate, startOwnDaemon } from "./own-daemon.ts";
import { type Peer, type PeerOptions, preparePeer, RUNTIMES } from "./peers.ts";
import type { Samples } from "./samples.ts";
import type { Bench } from "./subjects.ts";

/** Warm clones kept; the promises name this number. */
export const WARM_POOL = 8;
const BLOCKED_POOL = 4;
/** On a disk wherever there is one: a template's holes would be filled on tmpfs. */
const PARENT_DIRECTORY = "/var/tmp";

/** What a scenario tells its user meanwhile. */
export interface Listener {
  signal: AbortSignal;
  /** Something worth knowing, once. */
  note(text: string): void;
  /** What is being done now. */
  progress(step: string): void;
}

/** Prepares a run. @throws MayflyError `root_required`, `setup_required`, and what starting a daemon throws. */
export async function prepare(
  options: BenchOptions,
  samples: Samples,
  listener: Listener,
  resources: AsyncDisposableStack,
): Promise<{ bench: Bench; info: SystemInfo }> {
  if (!isRoot()) throw new MayflyError("root_required", "Cannot run the benchmark: its daemons must run as root");
  const { signal, progress } = listener;
  const artifactsOf = stateDirectory();
  await takeArtifacts(options, artifactsOf, signal);
  const artifacts = await loadArtifacts(artifactsOf);
  const directory = await mkdtemp(`${PARENT_DIRECTORY}/mayfly-bench-`);
  resources.defer(() => removePath(directory));
  // QEMU runs as a user of its own and opens its files by their paths.
  await chmod(directory, 0o711);
  progress("starting a daemon");
  const warmPool = { blocked: 0, warm: options.pool ? WARM_POOL : 0 };
  const warm = await startOwnDaemon({ directory: `${directory}/warm`, artifactsOf, pool: warmPool, signal });
  resources.use(warm);
  const onProgress = (step: string) => progress(`template: ${step}`);
  const template = await warm.client.templates.build({}, { onProgress, signal });
  samples.add("template", "build", "ms", template.buildMs);
  // What is started with nothing prepared has no more devices than it needs.
  await warm.client.templates.build({ profile: "exec" }, { onProgress, signal });
  const info = await warm.client.system.info({ signal });
  const { accelerator } = info;
  const started = { bench: { options, signal, warm }, info };
  const another = async (name: string, pool: PoolSizes) => {
    const own = `${directory}/${name}`;
    await linkTemplate(template, warm.stateDir, own);
    return resources.use(await startOwnDaemon({ directory: own, artifactsOf, pool, accelerator, signal }));
  };
  const blocked = options.pool ? await another("blocked", { blocked: BLOCKED_POOL, warm: 0 }) : undefined;
  // It is there; but what its clones go on from, where that is quicker than a QEMU that waits, is made now.
  await blocked?.client.templates.build({}, { onProgress, signal });
  const canCopy = options.pool && accelerator === "tcg";
  const copies = canCopy ? await another("copies", { blocked: 0, warm: 0, parent: true }) : undefined;
  let boots: ColdBoots | undefined;
  if (options.peers.includes("boot")) {
    boots = await ColdBoots.open(`${directory}/boot`, artifacts, accelerator);
    resources.use(boots);
  }
  const peers = await preparePeers(options, directory, listener, resources);
  return { ...started, bench: { ...started.bench, blocked, copies, boots, peers } };
}

/** Lets this process and the daemons that it starts use another QEMU or kernel than those in force, where one is named. */
export async function takeArtifacts(
  { qemu, kernel }: Pick<BenchOptions, "qemu" | "kernel">,
  stateDir: string,
  signal: AbortSignal,
): Promise<void> {
  if (qemu !== undefined) process.env["MAYFLY_QEMU"] = await qemuAside(stateDir, qemu);
  if (kernel === undefined) return;
  const { kernelPath, initramfsPath } = await kernelAside(kernel, { stateDir, signal });
  process.env["MAYFLY_KERNEL"] = kernelPath;
  process.env["MAYFLY_INITRAMFS"] = initramfsPath;
}

async function preparePeers(
  { peers: wanted }: BenchOptions,
  directory: string,
  { note, progress, signal }: Listener,
  resources: AsyncDisposableStack,
): Promise<Peer[]> {
  const names = RUNTIMES.filter((name) => wanted.includes(name));
  if (names.length === 0) return [];
  const busyboxPath = await findBusybox(stateDirectory());
  if (busyboxPath === undefined) {
    note(`${names.join(", ")} left out: set-up's busybox is not there`);
    return [];
  }
  const options: PeerOptions = { directory: `${directory}/peers`, busyboxPath, command: ECHO, signal };
  const peers: Peer[] = [];
  for (const name of names) {
    progress(`preparing ${name}`);
    try {
      const peer = await preparePeer(name, options, resources);
      if (peer.note !== undefined) note(`${name} is run ${peer.note}: it does not start otherwise here`);
      peers.push(peer);
    } catch (error) {
      if (signal.aborted) throw error;
      note(`${name} is left out: ${describe(error)}`);
    }
  }
  return peers;
}

function describe(error: unknown): string {
  if (!(error instanceof MayflyError)) return String(error);
  const last = error.details.stderrTail?.split("\n").at(-1) ?? "";
  return last === "" ? error.message : `${error.message}: ${last}`;
}
