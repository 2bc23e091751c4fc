/** How a VM is started from a snapshot, whether it is resumed, restored, or a clone of it. */
import type { ClonePath, CreateVmRequest, Vm } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import { imageDirectory } from "../image/store.ts";
import type { DiskFiles } from "../machine/devices/disk.ts";
import { shapeOf } from "../machine/profile.ts";
import { applyPages, openPagesFile } from "../snapshot/pages.ts";
import { type Deadline, nowMs } from "../sys/deadline.ts";
import { copySparse } from "../sys/memory-file.ts";
import { exists } from "../sys/publish.ts";
import type { LoadedTemplate } from "../template/store.ts";
import type { GuestObjects } from "./capture.ts";
import { planHooks, type RevivalKind } from "./captured-vm.ts";
import { type Clone, letRun } from "./clone.ts";
import type { EngineParts } from "./engine.ts";
import type { Gate } from "./gate.ts";
import type { HealthPlan } from "./health.ts";
import type { Holdings } from "./holdings.ts";
import type { GuestFile, GuestLimits, GuestSetup, Identity } from "./identity.ts";
import type { Launch } from "./launch.ts";
import { isRefusedImage } from "./process-images.ts";
import { goOn, type RevivedState, readyQemu, revive } from "./revive.ts";
import type { ReadySnapshot } from "./snapshot-records.ts";
import { StageClock } from "./stages.ts";
import { hexOf, limitHost } from "./start.ts";
import { templateDisks } from "./warmed.ts";

/** A VM that is to go on from a snapshot. */
export interface Revival {
  kind: Exclude<RevivalKind, "fork">;
  snapshot: ReadySnapshot;
  vm: Vm;
  /** As it is recorded for starts by its restart policy. */
  request: CreateVmRequest;
  identity: Identity;
  /** Its disks have their places; that of scratch is filled here. */
  holdings: Holdings;
  /** Where its main process' output goes on. */
  goesOnAt: { output: number; error: number };
  health: HealthPlan | null;
  limits?: GuestLimits | undefined;
  files?: readonly GuestFile[];
  /** For hooks. */
  env?: Readonly<Record<string, string>>;
  /** Nothing of its workload is to run: no hooks, no thaw. */
  staysFrozen?: boolean;
  /** Called just before anything of the guest runs. */
  beforeLoad?: () => void;
  /** Called when the snapshot's pages have been copied. */
  onCopied?: () => void;
}

/** What a snapshot goes on with: its base and its pages, or a template that has all of it. */
export interface SnapshotGround {
  template: LoadedTemplate;
  isWhole: boolean;
}

/** Makes the launch. @returns it, and what fills the pool again afterwards. */
export function launchFrom(
  parts: EngineParts,
  gate: Gate,
  revival: Revival,
  deadline: Deadline,
): { launch: Launch; refill: () => void } {
  const { snapshot, vm, holdings, identity, kind } = revival;
  const { captured, main, others } = snapshot.vm;
  const startedMs = nowMs();
  const ground = groundOf(parts, snapshot);
  const pool = parts.pools.of(ground.template);
  const start = async () => {
    const { template } = ground;
    const clock = new StageClock(startedMs);
    parts.templates.touch(template);
    const root = await rootHere(parts.host.config.stateDir, snapshot);
    if (root.root !== undefined) holdings.record.disks.root = root.root;
    await fillScratch(snapshot, holdings.record.disks, deadline);
    clock.end("plan");
    const { root: _root, ...own } = holdings.record.disks;
    const { limits, files = [], staysFrozen = false } = revival;
    const hooks = staysFrozen ? undefined : planHooks(captured, kind, vm.hostname, revival.env);
    const setup = { identity, hooks, container: undefined, limits, files, fills: [], disks: own, staysFrozen };
    const objects = { main: main === null ? null : { ...main, ...revival.goesOnAt }, others };
    const merge = vm.merge === true;
    const fromImage = await goOnFromImage(parts, snapshot, template, { root, merge, objects, setup, clock, deadline });
    if (fromImage !== undefined) return started(fromImage, "image", clock);
    const context = {
      host: parts.host,
      gate,
      pool: revival.request.pool === false ? undefined : pool,
      merge,
    };
    const qemu = await readyQemu(context, template, root, deadline);
    clock.end("spawn");
    revival.beforeLoad?.();
    const state: RevivedState = {
      ...objects,
      devices: snapshot.deviceState,
      writePages: async (pid, mapping) => {
        if (ground.isWhole) return;
        await using pages = await openPagesFile(snapshot.pagesPath);
        await applyPages(pid, mapping, pages);
        revival.onCopied?.();
      },
    };
    return started(await revive(qemu, template, state, setup, clock, deadline), qemu.path, clock);
  };
  const started = (clone: Clone, path: ClonePath, clock: StageClock) => {
    holdings.open(clone.agent);
    const sizes = {
      shape: shapeOf(ground.template.manifest.fingerprint),
      memoryBytes: vm.memoryBytes,
      cpus: vm.cpus,
      limited: false,
    };
    return { clone: limitHost(clone, sizes), path, clock, machineId: hexOf(identity.machineId) };
  };
  const launch: Launch = {
    request: revival.request,
    start,
    main: undefined,
    again: captured.again ?? undefined,
    goesOnAt: revival.goesOnAt,
    hooks: captured.hooks,
    resumed: kind === "resume",
    container: captured.container,
    health: revival.health ?? undefined,
    holdings,
  };
  return { launch, refill: () => pool.refill() };
}

/** Has a suspended VM go on from its process image. @returns undefined: there is none, or it does not fit any more; nothing of it has run then. */
async function goOnFromImage(
  { host, suspendedImages }: EngineParts,
  { document }: ReadySnapshot,
  template: LoadedTemplate,
  plan: {
    root: DiskFiles;
    merge: boolean;
    objects: GuestObjects;
    setup: GuestSetup;
    clock: StageClock;
    deadline: Deadline;
  },
): Promise<Clone | undefined> {
  const { root, merge, objects, setup, clock, deadline } = plan;
  const disks = { ...root, ...templateDisks(host.config.stateDir, template) };
  const spawned = await suspendedImages.spawn(document.id, template, disks, merge);
  if (spawned === undefined) return undefined;
  const { qemu, memoryPath } = spawned;
  clock.end("spawn");
  try {
    return await goOn(
      qemu,
      { id: template.id, memoryPath },
      objects,
      () => letRun(qemu, deadline),
      setup,
      clock,
      deadline,
    );
  } catch (error) {
    if (isRefusedImage(error)) return undefined;
    throw error;
  }
}

/** @throws `snapshot_incompatible` naming what differs, `template_not_found` for a base that is gone, `template_corrupt`. */
export function groundOf({ templates }: EngineParts, { document, manifest }: ReadySnapshot): SnapshotGround {
  const { promotedTo } = document;
  const whole = promotedTo === null ? undefined : templates.usable(promotedTo);
  if (whole !== undefined) return { template: whole, isWhole: true };
  const what = `Cannot go on from snapshot ${document.name ?? document.id}`;
  const { id, memory } = manifest.base;
  try {
    const template = templates.cloneable(id);
    const { sha256 } = template.manifest.memory;
    if (sha256 === memory.sha256) return { template, isWhole: false };
    throw new MayflyError("snapshot_corrupt", `${what}: its base ${id} has other contents than it was made on`);
  } catch (error) {
    if (!(error instanceof MayflyError)) throw error;
    const { code, details } = error;
    const isOther = code === "template_incompatible";
    if (!isOther && code !== "template_not_found") throw error;
    const why = isOther ? error.message : `its base template ${id} is gone`;
    throw new MayflyError(isOther ? "snapshot_incompatible" : code, `${what}: ${why}`, { details, cause: error });
  }
}

const IN_STORE = /\/images\/sha256\/([0-9a-f]{64})\/rootfs\.erofs$/;

/** Digest of the image in the store that a root disk's path is of; undefined: of none. */
export function rootDigest(path: string): string | undefined {
  const digest = IN_STORE.exec(path)?.[1];
  return digest === undefined ? undefined : `sha256:${digest}`;
}

/** The snapshot's root disk on this host. @throws `image_not_found`. */
async function rootHere(stateDir: string, { document, vm }: ReadySnapshot): Promise<Pick<DiskFiles, "root">> {
  const { root } = vm.held.disks;
  if (root === undefined) return {};
  const digest = rootDigest(root.path);
  const path = digest === undefined ? root.path : `${imageDirectory(stateDir, digest)}/rootfs.erofs`;
  if (await exists(path)) return { root: { ...root, path } };
  throw new MayflyError(
    "image_not_found",
    `Cannot go on from snapshot ${document.name ?? document.id}: its root disk ${document.image ?? ""} is not here (${path})`,
    { details: { path } },
  );
}

async function fillScratch(snapshot: ReadySnapshot, { scratch }: DiskFiles, deadline: Deadline): Promise<void> {
  const from = snapshot.disks.find(({ slot }) => slot === "scratch");
  if (from !== undefined && scratch !== undefined) await copySparse(from.path, scratch.path, deadline.signal);
}
