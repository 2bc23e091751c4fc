/** Snapshots on disk: `snapshots/ID/{manifest.json,pages,device-state,disks/}`, published atomically, immutable after. */
import { join } from "node:path";
import { MayflyError } from "../contract/errors.ts";
import type { SnapshotId } from "../contract/ids.ts";
import type { SnapshotDiff } from "../contract/snapshot.ts";
import { allocatedBytesBelow } from "../sys/allocated.ts";
import { Entries, type EntryKind, sha256Of } from "../sys/entries.ts";
import { digestMemoryFile } from "../sys/memory-file.ts";
import type { PageSet } from "../sys/page-set.ts";
import { makeDirectory } from "../sys/paths.ts";
import { exists, publishDirectory, sha256File } from "../sys/publish.ts";
import { newFile, seal, setMode } from "../sys/store-files.ts";
import { differingRanges } from "./diff.ts";
import {
  decodeSnapshotManifest,
  encodeSnapshotManifest,
  MAX_DEVICE_STATE_BYTES,
  MAX_MANIFEST_BYTES,
  type SnapshotBase,
  type SnapshotDisk,
  type SnapshotManifest,
} from "./manifest.ts";
import { openPagesFile, type PagesSummary, writePagesFile } from "./pages.ts";

const KIND: EntryKind = {
  noun: "snapshot",
  prefix: "snap_",
  notFound: "snapshot_not_found",
  corrupt: "snapshot_corrupt",
};

/** What a builder fills. */
export interface SnapshotWorkspace {
  /** Writes the file of pages, once. @throws `disk_full`. */
  writePages(pages: PageSet): Promise<PagesSummary>;
  /** Where the file of a disk has to be when the builder returns. */
  diskPath(slot: string, format: SnapshotDisk["format"]): string;
}

/** What a builder tells of the snapshot. */
export interface SnapshotDraft {
  kind: SnapshotManifest["kind"];
  base: SnapshotBase;
  pages: PagesSummary;
  deviceState: Uint8Array;
  disks: readonly Pick<SnapshotDisk, "slot" | "format">[];
  /** What is needed to go on with the VM: JSON. */
  vm: unknown;
}

/** A snapshot ready to be restored: its device state in memory and checked, its other files there and of the right size. */
export interface LoadedSnapshot {
  manifest: SnapshotManifest;
  pagesPath: string;
  deviceState: Uint8Array;
  /** Disks with the paths of their files. */
  disks: readonly (SnapshotDisk & { path: string })[];
}

/** The folder of snapshots of one state directory. */
export class SnapshotStore {
  readonly #entries: Entries;

  constructor(stateDir: string) {
    this.#entries = new Entries(join(stateDir, "snapshots"), KIND);
  }

  directory(id: string): string {
    return this.#entries.directory(id);
  }

  /**
   * Publishes a snapshot: `build` writes pages and disks into the workspace and returns what they are of. Everything is on disk when this returns.
   * @param parts `gid`: the group whose QEMUs may read the disks.
   * @returns the manifest. If anything throws, nothing of it is left.
   */
  async publish(
    parts: { id: SnapshotId; gid: number },
    build: (workspace: SnapshotWorkspace) => Promise<SnapshotDraft>,
  ): Promise<SnapshotManifest> {
    let manifest: SnapshotManifest | undefined;
    const isOurs = await publishDirectory(this.directory(parts.id), async (directory) => {
      const draft = await build(await makeWorkspace(directory));
      const { kind, base, pages, deviceState, vm } = draft;
      const disks = await Promise.all(draft.disks.map((disk) => finishDisk(directory, disk, parts.gid)));
      await newFile(join(directory, "device-state"), deviceState, 0o400);
      manifest = {
        id: parts.id,
        createdAt: new Date().toISOString(),
        kind,
        base,
        pages,
        deviceState: { sizeBytes: deviceState.length, sha256: sha256Of(deviceState) },
        disks,
        vm,
      };
      await finish(directory, manifest);
    });
    if (manifest === undefined || !isOurs)
      throw new MayflyError("name_in_use", `Cannot keep snapshot ${parts.id}: it is here already`);
    return manifest;
  }

  /**
   * Publishes a snapshot that was made elsewhere, as its manifest says: `fill` writes into the files, which are there and empty, and returns the
   * device state. All of it is checked before it is published.
   * @throws `snapshot_corrupt` if it is not what the manifest says; `name_in_use` if the id is taken. Nothing of it is left then.
   */
  async publishCopy(
    manifest: SnapshotManifest,
    gid: number,
    fill: (files: { pagesPath: string; diskPath(disk: SnapshotDisk): string }) => Promise<Uint8Array>,
  ): Promise<SnapshotManifest> {
    const isOurs = await publishDirectory(this.directory(manifest.id), async (directory) => {
      await makeWorkspace(directory);
      const pagesPath = join(directory, "pages");
      const diskPath = ({ file }: SnapshotDisk) => join(directory, "disks", file);
      for (const path of [pagesPath, ...manifest.disks.map(diskPath)]) await newFile(path, "", 0o600);
      const deviceState = await fill({ pagesPath, diskPath });
      const problems = await problemsIn(directory, manifest);
      if (sha256Of(deviceState) !== manifest.deviceState.sha256) problems.push("its device state has another checksum");
      if (problems.length > 0) throw this.#entries.corrupt(manifest.id, directory, problems.join("; "));
      await newFile(join(directory, "device-state"), deviceState, 0o400);
      for (const disk of manifest.disks) await seal(diskPath(disk), gid, 0o440);
      await finish(directory, manifest);
    });
    if (isOurs) return manifest;
    throw new MayflyError("name_in_use", `Cannot keep snapshot ${manifest.id}: it is here already`);
  }

  /** Whether there is a snapshot of an id, sound or not. */
  async has(id: string): Promise<boolean> {
    return exists(this.directory(id));
  }

  /** All published snapshots, and what cannot be used of them. */
  async list(): Promise<{ snapshots: SnapshotManifest[]; corrupt: { id: string; error: MayflyError }[] }> {
    const snapshots: SnapshotManifest[] = [];
    const corruptOnes: { id: string; error: MayflyError }[] = [];
    for (const id of await this.#entries.ids()) {
      try {
        snapshots.push(await this.manifest(id));
      } catch (error) {
        if (!(error instanceof MayflyError)) throw error;
        if (error.code === "snapshot_corrupt") corruptOnes.push({ id, error });
      }
    }
    return { snapshots, corrupt: corruptOnes };
  }

  /** A snapshot's manifest. @throws `snapshot_not_found`, `snapshot_corrupt`. */
  async manifest(id: string): Promise<SnapshotManifest> {
    const path = join(this.directory(id), "manifest.json");
    const manifest = decodeSnapshotManifest(await this.#entries.read(id, "manifest.json", MAX_MANIFEST_BYTES), path);
    if (manifest.id !== id) throw this.#entries.corrupt(id, path, `the manifest belongs to ${manifest.id}`);
    return manifest;
  }

  /** Reads a snapshot to go on from it. Pages and disks are checked by size here, the pages' contents as they are read. @throws `snapshot_not_found`, `snapshot_corrupt`. */
  async load(id: string): Promise<LoadedSnapshot> {
    const manifest = await this.manifest(id);
    const directory = this.directory(id);
    const deviceState = await this.#entries.readDeviceState(id, manifest.deviceState, MAX_DEVICE_STATE_BYTES);
    const pagesPath = join(directory, "pages");
    await this.#entries.checkSize(id, "pages", manifest.pages.sizeBytes);
    const disks = manifest.disks.map((disk) => ({ ...disk, path: join(directory, "disks", disk.file) }));
    for (const disk of disks) await this.#entries.checkSize(id, join("disks", disk.file), disk.sizeBytes);
    return { manifest, pagesPath, deviceState, disks };
  }

  /** Checks all files against the manifest, every byte. @returns every problem; none: it is sound. @throws `snapshot_not_found`. */
  async verify(id: string): Promise<string[]> {
    try {
      const { manifest } = await this.load(id);
      return await problemsIn(this.directory(id), manifest);
    } catch (error) {
      if (error instanceof MayflyError && error.code === "snapshot_corrupt") return [error.message];
      throw error;
    }
  }

  /**
   * Pages of memory that differ between a snapshot and another of the same base, or the base itself.
   * @throws `snapshot_not_found`, `snapshot_corrupt`; `invalid_argument` if their bases are not the same.
   */
  async diff(to: string, from: string | undefined): Promise<SnapshotDiff> {
    const target = await this.load(to);
    const origin = from === undefined ? undefined : await this.load(from);
    if (origin !== undefined && origin.manifest.base.memory.sha256 !== target.manifest.base.memory.sha256) {
      const bases = `${origin.manifest.base.id} and ${target.manifest.base.id}`;
      throw new MayflyError("invalid_argument", `Cannot compare ${from} with ${to}: their base templates are ${bases}`);
    }
    await using toFile = await openPagesFile(target.pagesPath);
    await using fromFile = origin === undefined ? undefined : await openPagesFile(origin.pagesPath);
    return { from: from ?? null, to, ...(await differingRanges(toFile, fromFile)) };
  }

  /** All that a snapshot takes on disk, in bytes. */
  async sizeBytes(id: string): Promise<number> {
    return allocatedBytesBelow(this.directory(id));
  }

  /** Removes a snapshot: renamed away first, so that it is whole or gone. */
  async remove(id: string): Promise<void> {
    await this.#entries.remove(id);
  }

  /** Removes what an interrupted publishing or removal has left. Only the daemon that holds the state directory may call it. */
  async sweep(): Promise<string[]> {
    return this.#entries.sweep();
  }
}

/** Reads pages and disks to the end. @returns what does not fit the manifest. */
async function problemsIn(directory: string, manifest: SnapshotManifest): Promise<string[]> {
  const problems: string[] = [];
  const pagesPath = join(directory, "pages");
  const pages = await sha256File(pagesPath);
  if (pages !== manifest.pages.sha256) {
    problems.push(`pages have checksum ${pages}, the manifest requires ${manifest.pages.sha256}`);
  }
  for (const { file, sha256: wanted } of manifest.disks) {
    const { sha256: actual } = await digestMemoryFile(join(directory, "disks", file), { trim: false });
    if (actual !== wanted) problems.push(`disk ${file} has checksum ${actual}, the manifest requires ${wanted}`);
  }
  if (problems.length > 0) return problems;
  await using file = await openPagesFile(pagesPath);
  const wanted = manifest.base.memory.sizeBytes;
  if (file.memoryBytes !== wanted)
    problems.push(`pages are of ${file.memoryBytes} bytes of memory, the base has ${wanted}`);
  for await (const _set of file.sets());
  return problems;
}

async function makeWorkspace(directory: string): Promise<SnapshotWorkspace> {
  await setMode(directory, 0o700);
  await makeDirectory(join(directory, "disks"), 0o700);
  return {
    writePages: (pages) => writePagesFile(join(directory, "pages"), pages),
    diskPath: (slot, format) => join(directory, "disks", `${slot}.${format}`),
  };
}

/** Seals a disk, which stays where the builder has put it. */
async function finishDisk(
  directory: string,
  { slot, format }: Pick<SnapshotDisk, "slot" | "format">,
  gid: number,
): Promise<SnapshotDisk> {
  const file = `${slot}.${format}`;
  const path = join(directory, "disks", file);
  const { sizeBytes, sha256: sum } = await digestMemoryFile(path, { trim: false });
  await seal(path, gid, 0o440);
  return { slot, file, sizeBytes, sha256: sum, format };
}

/** Writes the manifest and sets the modes: who may read the disks has to get to them. */
async function finish(directory: string, manifest: SnapshotManifest): Promise<void> {
  await newFile(join(directory, "manifest.json"), encodeSnapshotManifest(manifest), 0o400);
  await setMode(join(directory, "pages"), 0o400);
  if (manifest.disks.length === 0) return;
  await setMode(join(directory, "disks"), 0o711);
  await setMode(directory, 0o711);
}
