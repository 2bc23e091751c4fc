/** Snapshots that go to other hosts and come from there, each as one file. */
import { z } from "zod";
import {
  type ExportSnapshotRequest,
  type ImportSnapshotRequest,
  type Snapshot,
  Vm as VmSchema,
} from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import type { SnapshotId } from "../contract/ids.ts";
import { adoptImage, decodeImageManifest, sameImage } from "../image/adopt.ts";
import { imageDirectory, openImage, readAccounts, type StoredImage } from "../image/store.ts";
import type { WritableDisk } from "../machine/devices/disk.ts";
import { fingerprintDifferences } from "../machine/fingerprint.ts";
import { shapeOf } from "../machine/profile.ts";
import {
  type ArchiveContent,
  type ArchiveImage,
  exportSnapshot,
  type ImageFiles,
  type ImportHost,
  importSnapshot,
  incompatible,
} from "../snapshot/archive.ts";
import type { SnapshotManifest } from "../snapshot/manifest.ts";
import { digestMemoryFile } from "../sys/memory-file.ts";
import { withFileBeside } from "../sys/publish.ts";
import { TemplateStore } from "../template/store.ts";
import { flattenOverlay } from "../volume/overlay-content.ts";
import { describe } from "./checkpoint.ts";
import type { EngineParts } from "./engine.ts";
import { fingerprintFor, tenantGid } from "./host.ts";
import type { ProgressOptions } from "./interface.ts";
import { rootDigest } from "./snapshot-launch.ts";
import {
  decodeSnapshotVm,
  encodeSnapshotVm,
  type ReadySnapshot,
  type SnapshotRecords,
  type SnapshotVm,
} from "./snapshot-records.ts";

/** Bytes between two lines of progress. */
const STEP_BYTES = 64 << 20;

/** A scratch disk that came from another host: the snapshot's own file, of which each VM gets a copy. */
const MOVED_SCRATCH: WritableDisk = { path: "", format: "raw", readOnly: false };
const MovedScratch = z.strictObject({ path: z.literal(""), format: z.literal("raw"), readOnly: z.literal(false) });

/** What is asked of a stranger's record of a container. */
const Container = z
  .object({
    defaults: z.object({ env: z.record(z.string(), z.string()), workdir: z.string(), user: z.string() }),
    user: z.object({ uid: z.int(), gid: z.int(), groups: z.array(z.int()), home: z.string() }),
  })
  .nullable();

/**
 * Writes one into a file.
 * @throws `not_capturable` for disks that lie over what only this host has; `file_operation_failed`, `disk_full`, `snapshot_corrupt`.
 */
export async function exportTo(
  { host, templates }: EngineParts,
  snapshots: SnapshotRecords,
  ref: string,
  request: ExportSnapshotRequest,
  options: ProgressOptions,
): Promise<Snapshot> {
  const snapshot = await snapshots.ready(ref);
  const { document, manifest, vm } = snapshot;
  const { root, scratch, ...others } = vm.held.disks;
  const digest = root === undefined ? undefined : rootDigest(root.path);
  const slot = root !== undefined && digest === undefined ? "root" : Object.keys(others)[0];
  if (slot !== undefined) {
    const what = `Cannot export snapshot ${document.name ?? document.id}`;
    const why = "lies over files of this host; keep what has to move in memory or in the image";
    throw new MayflyError("not_capturable", `${what}: its disk ${slot} ${why}`, { details: { slot } });
  }
  const store = new TemplateStore(host.config.stateDir);
  const { id } = manifest.base;
  // Another host would find it damaged.
  const problems = await snapshots.store.verify(document.id);
  if (problems.length > 0) {
    const what = `Cannot export snapshot ${document.name ?? document.id}`;
    throw new MayflyError("snapshot_corrupt", `${what}: ${problems.join("; ")}`, { details: { problems } });
  }
  const loaded = request.base === false ? undefined : await baseOf(store, id, templates);
  const base = loaded && {
    manifest: await store.manifestBytes(id),
    deviceState: loaded.deviceState,
    memoryPath: loaded.memoryPath,
  };
  const { stateDir } = host.config;
  const image = digest === undefined ? undefined : await imageOf(stateDir, digest, request.image !== false);
  const write = (content?: ArchiveContent) =>
    exportSnapshot(snapshots.store, document.id, request.path, { base, image, content }, progress("written", options));
  if (scratch === undefined) await write();
  else {
    const beside = snapshots.store.directory(document.id);
    await withFileBeside(beside, async (path) => write(await wholeScratch(snapshot, scratch, path, options)));
  }
  return document;
}

/** A scratch disk as it goes to other hosts: as one raw image, since the file system that it lies over is made anew on each. */
async function wholeScratch(
  { manifest, vm, disks }: ReadySnapshot,
  { basePath }: WritableDisk,
  path: string,
  { deadline }: ProgressOptions,
): Promise<ArchiveContent> {
  const held = { ...vm.held, disks: { ...vm.held.disks, scratch: MOVED_SCRATCH } };
  const moved = { ...manifest, vm: encodeSnapshotVm({ ...vm, held }) };
  const overlay = disks.find(({ slot }) => slot === "scratch");
  if (basePath === undefined || overlay === undefined) return { manifest: moved, disks };
  await flattenOverlay(overlay.path, basePath, path, deadline.signal);
  const { sizeBytes, sha256 } = await digestMemoryFile(path, { trim: true });
  const disk = { slot: "scratch", file: "scratch.raw", format: "raw" as const, sizeBytes, sha256 };
  return { manifest: { ...moved, disks: [disk] }, disks: [{ ...disk, path }] };
}

async function imageOf(stateDir: string, digest: string, isWhole: boolean): Promise<ArchiveImage> {
  const { manifest, rootfsPath } = await openImage(stateDir, digest);
  const { passwd, group } = await readAccounts(stateDir, digest);
  return {
    manifest: Buffer.from(JSON.stringify(manifest)),
    passwd: Buffer.from(passwd),
    group: Buffer.from(group),
    rootfsPath: isWhole ? rootfsPath : undefined,
  };
}

async function baseOf(store: TemplateStore, id: string, templates: EngineParts["templates"]) {
  const loaded = templates.usable(id) ?? (await store.load(id));
  loaded.check();
  return loaded;
}

/**
 * Reads one from a file, and its image and base unless they are here.
 * @throws `snapshot_incompatible` naming the fields that differ, `snapshot_corrupt`, `image_not_found`, `name_in_use`, `template_not_found`,
 * `disk_full`; nothing is left then.
 */
export async function importFrom(
  parts: EngineParts,
  snapshots: SnapshotRecords,
  request: ImportSnapshotRequest,
  options: ProgressOptions,
): Promise<Snapshot> {
  // An image that came along goes again if the snapshot does not come to be.
  return parts.images.adding(() => importInto(parts, snapshots, request, options));
}

async function importInto(
  parts: EngineParts,
  snapshots: SnapshotRecords,
  request: ImportSnapshotRequest,
  options: ProgressOptions,
): Promise<Snapshot> {
  snapshots.requireFree(request.name);
  using expected = new Expected(snapshots.expected);
  const { importer, adopted } = importHost(parts, expected);
  const manifest = await importSnapshot(snapshots.store, request.path, importer, progress("read", options));
  const vm = decodeSnapshotVm(manifest.id, manifest.vm);
  const document: Snapshot = {
    ...describe(vm.captured.vm),
    id: manifest.id,
    templateId: manifest.base.id,
    name: request.name ?? null,
    createdAt: manifest.createdAt,
    kind: "checkpoint",
    pages: manifest.pages.count,
    zeroPages: manifest.pages.zeroCount,
    sizeBytes: await snapshots.store.sizeBytes(manifest.id),
    promotedTo: null,
    times: { stoppedMs: 0, vcpuStoppedMs: 0, durableMs: null },
  };
  // Listed without a name: what it is called is the other host's.
  for (const image of adopted) await parts.images.addContents(image, []);
  await snapshots.add(document, vm);
  parts.events.emit("snapshot.imported", document.id, document.name ?? undefined, { vmId: document.vmId });
  return document;
}

/** Snapshots that are about to be there, so that what comes before them is not taken for a remainder. */
class Expected implements Disposable {
  readonly #added: string[] = [];

  constructor(private readonly ids: Set<string>) {}

  add(id: string): void {
    this.ids.add(id);
    this.#added.push(id);
  }

  [Symbol.dispose](): void {
    for (const id of this.#added) this.ids.delete(id);
  }
}

/** @returns it, and the images that it has taken in. */
function importHost(
  { host, templates }: EngineParts,
  expected: Expected,
): { importer: ImportHost; adopted: StoredImage[] } {
  const { stateDir } = host.config;
  const store = new TemplateStore(stateDir);
  const gid = tenantGid(host);
  const adopted: StoredImage[] = [];
  let snapshotId = "";
  const importer: ImportHost = {
    accept: async (manifest) => {
      const { fingerprint } = manifest.base;
      const differences = fingerprintDifferences(fingerprint, fingerprintFor(host, shapeOf(fingerprint)));
      if (differences.length > 0) throw incompatible(manifest, differences);
      requireOurs(manifest);
      snapshotId = manifest.id;
      expected.add(manifest.id);
      return { id: manifest.id as SnapshotId, gid };
    },
    takeImage: async (manifest, files) => {
      const vm = decodeSnapshotVm(manifest.id, manifest.vm);
      const { root } = vm.held.disks;
      if (root === undefined) return manifest.vm;
      const image = await takeImage(stateDir, manifest.id, vm, files);
      if (image.isNew) adopted.push(image);
      const path = `${imageDirectory(stateDir, image.manifest.digest)}/rootfs.erofs`;
      const held = { ...vm.held, disks: { ...vm.held.disks, root: { ...root, path } } };
      return encodeSnapshotVm({ ...vm, held });
    },
    hasBase: async ({ id, memory }) => templates.usable(id)?.manifest.memory.sha256 === memory.sha256,
    adoptBase: async (id, files) => {
      const isNew = await store.adopt(id, files, { gid, snapshotId });
      if (isNew) await templates.take(id);
      return isNew;
    },
    removeBase: (id) => templates.remove(id, true),
  };
  return { importer, adopted };
}

/** The root of an imported VM: the very file system that it had, of this host or of the file. */
async function takeImage(
  stateDir: string,
  id: string,
  { captured, held }: SnapshotVm,
  files: ImageFiles | undefined,
): Promise<StoredImage & { isNew: boolean }> {
  const wanted = files === undefined ? undefined : decodeImageManifest(files.manifest);
  const digest = rootDigest(held.disks.root?.path ?? "");
  if (files === undefined || wanted === undefined || wanted.digest !== digest) {
    throw new MayflyError("snapshot_corrupt", `Cannot import snapshot ${id}: what its image has is not said in it`);
  }
  const here = await sameImage(stateDir, wanted);
  if (here !== undefined) return { ...here, isNew: false };
  const { fillRootfs } = files;
  if (fillRootfs !== undefined) {
    return { ...(await adoptImage(stateDir, wanted, { ...files, fillRootfs })), isNew: true };
  }
  const { image, rootfs } = captured.vm;
  const what = `Cannot import snapshot ${id}: its image ${image ?? rootfs ?? ""} (${wanted.digest})`;
  const why = `is neither in the file nor on this host with the same file system (${wanted.sha256})`;
  throw new MayflyError("image_not_found", `${what} ${why}`, { details: { digest: wanted.digest } });
}

/** What a file from elsewhere says of its VM: nothing of this host but an image may be named. */
function requireOurs(manifest: SnapshotManifest): void {
  const { captured, held }: SnapshotVm = decodeSnapshotVm(manifest.id, manifest.vm);
  const checks = [VmSchema.safeParse(captured.vm), Container.safeParse(captured.container)];
  const problems = checks.flatMap(
    ({ error }) => error?.issues.map(({ path, message }) => `${path.join(".")}: ${message}`) ?? [],
  );
  if (problems.length > 0) {
    throw new MayflyError("snapshot_corrupt", `Cannot import snapshot ${manifest.id}: its VM has ${problems[0]}`, {
      details: { problems },
    });
  }
  const { root, scratch, ...others } = held.disks;
  const digest = root === undefined ? undefined : rootDigest(root.path);
  const isStrange =
    Object.keys(others).length > 0 || held.volumes.length > 0 || (root !== undefined && digest === undefined);
  const isWhole = scratch === undefined || MovedScratch.safeParse(scratch).success;
  const disks = manifest.disks.map(({ slot, format }) => `${slot}.${format}`);
  const fits = disks.join() === (scratch === undefined ? "" : "scratch.raw");
  if (isStrange || !isWhole || !fits) {
    throw new MayflyError("snapshot_corrupt", `Cannot import snapshot ${manifest.id}: it names disks of another host`);
  }
}

/** Tells how far it is. */
function progress(
  verb: string,
  { onProgress, deadline }: ProgressOptions,
): { signal?: AbortSignal; onBytes: (bytes: number) => void } {
  let toldBytes = 0;
  const onBytes = (bytes: number) => {
    if (bytes < toldBytes + STEP_BYTES) return;
    toldBytes = bytes;
    onProgress?.(`${Math.round(bytes / 2 ** 20)} MiB ${verb}`);
  };
  return { onBytes, ...(deadline.signal === undefined ? {} : { signal: deadline.signal }) };
}
