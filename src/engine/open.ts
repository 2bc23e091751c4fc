/** Opens an engine: lock, records, accelerator, templates, recovery of what ran before; then pools begin to fill. */
import { createHash } from "node:crypto";
import { join } from "node:path";
import type { Image, Vm } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import type { HostArtifacts } from "../contract/machine.ts";
import { SnapshotStore } from "../snapshot/store.ts";
import { systemClock } from "../sys/clock.ts";
import { availableMemoryBytes, hostMemoryBytes } from "../sys/host.ts";
import { type FileLock, tryLockFile } from "../sys/lock.ts";
import { runsAsRoot } from "../sys/process.ts";
import { ensureDirectory } from "../sys/store-files.ts";
import { TemplateStore } from "../template/store.ts";
import { Admission } from "./admission.ts";
import { recover } from "./adopt.ts";
import { CONFIG_DEFAULTS, type EngineConfig } from "./config.ts";
import { type EngineParts, LocalEngine } from "./engine.ts";
import { Events } from "./events.ts";
import { ForkCopies } from "./fork-source.ts";
import type { Host } from "./host.ts";
import { ImageMaker } from "./image-maker.ts";
import { ImageOperations } from "./image-operations.ts";
import { Images } from "./images.ts";
import type { Engine } from "./interface.ts";
import { Metrics } from "./metrics.ts";
import { type ArtifactsWatch, NewArtifacts } from "./new-artifacts.ts";
import { Pools } from "./pools.ts";
import { chooseAccelerator, hostTscKHz, hostWith } from "./probe.ts";
import { ProcessImages } from "./process-images.ts";
import { Records } from "./records.ts";
import { Slots } from "./slots.ts";
import { rootDigest } from "./snapshot-launch.ts";
import { SnapshotRecords, sharedDisks } from "./snapshot-records.ts";
import { SuspendedImages } from "./suspended-images.ts";
import { Templates } from "./templates.ts";
import { Vms } from "./vms.ts";
import { Volumes } from "./volumes.ts";

/** What must be given; the rest has defaults. */
export type OpenOptions = Pick<EngineConfig, "stateDir" | "runDir" | "artifacts"> &
  Partial<EngineConfig> & {
    /** How the engine hears of other artifacts that are put in force, and reads them; absent: it keeps those it was given. */
    newArtifacts?: { watch: ArtifactsWatch; load: () => Promise<HostArtifacts> };
  };

/**
 * Opens the engine of a state directory.
 * @throws `root_required`; `daemon_running` when another process holds the directory; `qemu_not_found`, `boot_failed` ...
 */
export async function openEngine({ newArtifacts, ...options }: OpenOptions): Promise<Engine> {
  const config: EngineConfig = { ...CONFIG_DEFAULTS, ...options };
  if (!runsAsRoot()) {
    throw new MayflyError("root_required", "Cannot start VMs: the daemon must run as root, which gives each VM a uid");
  }
  await using opening = new AsyncDisposableStack();
  for (const path of [config.stateDir, config.runDir]) ensureDirectory(path, 0o711);
  const lock = opening.use(takeLock(config.stateDir));
  const records = opening.use(new Records(join(config.stateDir, "mayfly.db")));
  const slots = new Slots(config.runDir, config.uidBase, groupName(config.stateDir));
  const base = { config, slots, records, tscKHz: await hostTscKHz(records) };
  // Slots of QEMUs that still run must not be given to the probe's.
  const reserved = records.qemus().map(({ slot, owners = [] }) => slots.reserve(slot, owners));
  const host = hostWith(base, await chooseAccelerator(base));
  for (const slot of reserved) slots.unreserve(slot);

  const events = new Events();
  const metrics = new Metrics();
  const store = new TemplateStore(config.stateDir);
  const templates = new Templates(host, store, events);
  const images = new Images(host, events);
  const vms = new Vms(host, events, metrics);
  const volumes = new Volumes(host, events);
  const snapshots = new SnapshotRecords(new SnapshotStore(config.stateDir), records, events);
  images.usedBy = (image) => runningOnImage(vms.list(), image);
  images.neededBy = (digest) => usersOfContents(digest, { templates, snapshots, vms });
  await templates.load();
  await images.load();
  await volumes.load();
  await recover({ host, vms, events, volumes });
  snapshots.hold = ({ id, name }, disks) =>
    volumes.disks.adopt({ id, name: name ?? id, autoRemove: false }, sharedDisks(disks));
  await snapshots.load((id) => vms.list().some((vm) => vm.suspendedIn === id));
  await images.collect();
  await volumes.disks.sweep(
    (id) => vms.isRunning(id) || vms.parked.has(id) || vms.adoptions.has(id),
    (id) => vms.record(id) !== undefined,
  );
  const { pools, processImages, imageMaker } = await preparePools({ host, store, templates, vms, events });
  const admission = new Admission({
    ...{ config, host, vms, pools, clock: systemClock, metrics },
    memory: { totalBytes: hostMemoryBytes(), availableBytes: availableMemoryBytes },
  });
  volumes.usedBy = (name) => startedWith(vms.list(), name);
  volumes.ending = (id) => vms.ending(id);
  templates.inUse = (id) => vms.runsOn(id) || snapshots.onTemplate(id).length > 0;
  templates.hasSnapshot = (id) => snapshots.find(id) !== undefined || snapshots.expected.has(id);
  removeOrphans(templates, snapshots, events);
  templates.neededBy = (id) => snapshots.onTemplate(id);
  templates.resolveImage = (ref) => images.resolve(ref);
  opening.move();
  const release = (held: FileLock) => held[Symbol.dispose]();
  const changing = newArtifacts && new NewArtifacts({ host, pools, events, load: newArtifacts.load });
  const watch = newArtifacts?.watch(() => void changing?.take());
  const imageOperations = new ImageOperations(host, images, events);
  const forkCopies = new ForkCopies(host);
  const engine = new LocalEngine({
    ...{ host, templates, images, imageOperations, vms, volumes, snapshots },
    pools,
    processImages,
    imageMaker,
    forkCopies,
    suspendedImages: new SuspendedImages(host, forkCopies, snapshots.store),
    admission,
    events,
    metrics,
    close: () => {
      watch?.[Symbol.dispose]();
      release(lock);
    },
  });
  pools.start();
  vms.restarts.release();
  return engine;
}

/** Pools, and what clones go on from for which nothing is prepared, as earlier daemons have left it. */
async function preparePools(parts: {
  host: Host;
  store: TemplateStore;
  templates: Templates;
  vms: Vms;
  events: Events;
}): Promise<Pick<EngineParts, "pools" | "processImages" | "imageMaker">> {
  const { host, store, templates, vms, events } = parts;
  const isMapped = (memoryPath: string) => vms.list().some(({ id }) => vms.record(id)?.memoryPath === memoryPath);
  const processImages = new ProcessImages(host, (id) => store.directory(id), isMapped);
  await processImages.load(templates.list().map(({ id }) => id));
  const pools = new Pools(host, templates, events, processImages);
  const imageMaker = new ImageMaker(host, processImages, (template) => pools.of(template));
  pools.onSmaller = (template) => imageMaker.make(template);
  templates.onRemove = async (id) => {
    await Promise.all([imageMaker.cancel(id), pools.close(id)]);
    processImages.forget(id);
  };
  return { pools, processImages, imageMaker };
}

/** After these a VM needs no template any more. */
const VM_ENDS: ReadonlySet<string> = new Set(["vm.exited", "vm.failed", "vm.removed"]);

/** Templates that were made for a snapshot go with it, or with the last VM on them. */
function removeOrphans(templates: Templates, snapshots: SnapshotRecords, events: Events): void {
  let last: Promise<void> = Promise.resolve();
  const work = () => templates.removeOrphans();
  // One after another: two would remove the same.
  const remove = () => {
    last = last.then(work, work);
    return last;
  };
  snapshots.onRemoved = remove;
  events.subscribe(({ type }) => {
    if (VM_ENDS.has(type)) remove().catch(() => undefined);
  });
}

/** Who has the contents of an image as its root, in words. */
function usersOfContents(
  digest: string,
  { templates, snapshots, vms }: { templates: Templates; snapshots: SnapshotRecords; vms: Vms },
): string[] {
  const isOn = (id: string) => rootDigest(vms.record(id)?.held.disks.root?.path ?? "") === digest;
  const running = vms.list().filter(({ id, finishedAt }) => finishedAt === null && isOn(id));
  return [
    ...templates.onImage(digest).map((name) => `template ${name}`),
    ...snapshots.onImage(digest),
    ...running.map(({ name }) => `VM ${name}`),
  ];
}

/** The VMs that were started with a volume and not removed since: they may be started again. */
function startedWith(vms: readonly Vm[], volume: string): Vm[] {
  return vms.filter(({ mounts }) => mounts.some(({ kind, source }) => kind === "volume" && source === volume));
}

/** Names of the VMs that run on an image. */
function runningOnImage(vms: readonly Vm[], { id, name }: Pick<Image, "id" | "name">): string[] {
  const running = vms.filter((vm) => vm.finishedAt === null && (vm.imageId === id || vm.rootfs === name));
  return running.map((vm) => vm.name);
}

function takeLock(stateDir: string): FileLock {
  const path = join(stateDir, "daemon.lock");
  const lock = tryLockFile(path);
  if (lock !== undefined) return lock;
  throw new MayflyError("daemon_running", `Another daemon already serves the state directory ${stateDir}`, {
    details: { path },
  });
}

/** Control group of a daemon's VMs: each state directory has its own. */
export function groupName(stateDir: string): string {
  if (stateDir === "/var/lib/mayfly") return "mayfly";
  return `mayfly-${createHash("sha256").update(stateDir).digest("hex").slice(0, 8)}`;
}
