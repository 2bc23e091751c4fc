/**
 * A snapshot as one file for another host (docs/adr/0032-snapshot-format.md): a tar file with the manifest, the image and the base template unless
 * they are only referred to, device state, pages and disks; what is large as zstd. The order is fixed, and each name follows from what came before.
 */
import { MayflyError } from "../contract/errors.ts";
import type { SnapshotId } from "../contract/ids.ts";
import { BinaryFile } from "../sys/binary-file.ts";
import { identityOf } from "../sys/paths.ts";
import { writeSparse } from "../sys/sparse-stream.ts";
import { END_BYTES, memberHeader, memberPadding } from "../sys/tar-members.ts";
import { writeWhole } from "../sys/whole-file.ts";
import { ArchiveReader } from "./archive-reader.ts";
import {
  decodeSnapshotManifest,
  encodeSnapshotManifest,
  type SnapshotBase,
  type SnapshotManifest,
} from "./manifest.ts";
import type { LoadedSnapshot, SnapshotStore } from "./store.ts";

/** A base template's files. */
export interface ArchiveBase {
  /** Its manifest's file as it is. */
  manifest: Uint8Array;
  deviceState: Uint8Array;
  memoryPath: string;
}

/** The image that the VM's root is. */
export interface ArchiveImage {
  /** Its manifest's file as it is, and the accounts that are kept with it. */
  manifest: Uint8Array;
  passwd: Uint8Array;
  group: Uint8Array;
  /** Undefined: it is referred to, and has to be there where the snapshot is imported. */
  rootfsPath: string | undefined;
}

/** An image as it comes out of an archive. */
export interface ImageFiles extends Omit<ArchiveImage, "rootfsPath"> {
  /** Writes its file system into an existing file of that size; absent: the archive only refers to it. */
  fillRootfs: ((path: string, sizeBytes: number) => Promise<void>) | undefined;
}

/** What an archive has instead of the snapshot's own. */
export interface ArchiveContent {
  manifest: SnapshotManifest;
  disks: LoadedSnapshot["disks"];
}

/** How an archive is written or read. */
export interface ArchiveOptions {
  signal?: AbortSignal;
  /** Told how many bytes in all have been dealt with: of memory and disks when writing (holes do not count), of the archive when reading. */
  onBytes?: (bytes: number) => void;
}

/** What the importing host has to say. */
export interface ImportHost {
  /**
   * Looks at the manifest before anything is kept. Throws what is to be refused, e.g. {@link incompatible}.
   * @returns under which id it is kept, and the group of its disks.
   */
  accept(manifest: SnapshotManifest): Promise<{ id: SnapshotId; gid: number }>;
  /**
   * Finds or keeps the image.
   * @param files undefined: the archive says nothing of one. If its file system is there it may be left unread.
   * @returns what is kept of the VM.
   */
  takeImage(manifest: SnapshotManifest, files: ImageFiles | undefined): Promise<unknown>;
  /** Whether this very base is here. */
  hasBase(base: SnapshotBase): Promise<boolean>;
  /**
   * Keeps a base that came along under this id, checked against its own manifest, which is whatever the archive had.
   * @returns whether it was kept: a template of that id that is here already stays.
   */
  adoptBase(
    id: string,
    files: {
      manifest: Uint8Array;
      deviceState: Uint8Array;
      /** Writes the memory into an existing file. */
      fillMemory(path: string): Promise<void>;
    },
  ): Promise<boolean>;
  /** Takes an adopted base away again, because the snapshot could not be imported. */
  removeBase(id: string): Promise<void>;
}

/** Names of the members, in the order in which they are there. */
export const MEMBERS = {
  manifest: "manifest.json",
  imageManifest: "image/manifest.json",
  imagePasswd: "image/passwd",
  imageGroup: "image/group",
  imageRootfs: "image/rootfs.zst",
  baseManifest: "base/manifest.json",
  baseDeviceState: "base/device-state",
  baseMemory: "base/memory.zst",
  deviceState: "device-state",
  pages: "pages.zst",
  disk: (file: string) => `disks/${file}.zst`,
} as const;

/**
 * Writes a snapshot into a new file, whole or not at all.
 * @param parts `base`: undefined: it is referred to by its checksum, and has to be there where it is imported. `image`: undefined: there is none.
 * `content`: where its disks lie over files of this host.
 * @throws `snapshot_not_found`, `snapshot_corrupt`; `file_operation_failed`, `disk_full`, `cancelled`.
 */
export async function exportSnapshot(
  store: SnapshotStore,
  id: string,
  path: string,
  {
    base,
    image,
    content,
  }: { base?: ArchiveBase | undefined; image?: ArchiveImage | undefined; content?: ArchiveContent | undefined },
  options: ArchiveOptions = {},
): Promise<void> {
  const { deviceState, pagesPath, ...own } = await store.load(id);
  const { manifest, disks } = content ?? own;
  await writeWhole(path, async (file) => {
    const archive = new ArchiveWriter(file, options);
    await archive.add(MEMBERS.manifest, Buffer.from(encodeSnapshotManifest(manifest)));
    if (image !== undefined) {
      await archive.add(MEMBERS.imageManifest, image.manifest);
      await archive.add(MEMBERS.imagePasswd, image.passwd);
      await archive.add(MEMBERS.imageGroup, image.group);
      if (image.rootfsPath !== undefined) await archive.addSparse(MEMBERS.imageRootfs, image.rootfsPath);
    }
    if (base !== undefined) {
      await archive.add(MEMBERS.baseManifest, base.manifest);
      await archive.add(MEMBERS.baseDeviceState, base.deviceState);
      await archive.addSparse(MEMBERS.baseMemory, base.memoryPath);
    }
    await archive.add(MEMBERS.deviceState, deviceState);
    await archive.addSparse(MEMBERS.pages, pagesPath);
    for (const disk of disks) await archive.addSparse(MEMBERS.disk(disk.file), disk.path);
    await archive.end();
  });
}

class ArchiveWriter {
  #at = 0;
  #doneBytes = 0;

  constructor(
    private readonly file: BinaryFile,
    private readonly options: ArchiveOptions,
  ) {}

  async add(name: string, bytes: Uint8Array): Promise<void> {
    await this.#append(memberHeader(name, bytes.length));
    await this.#append(bytes);
    await this.#append(new Uint8Array(memberPadding(bytes.length)));
  }

  /** Its size is known, and its header written, when it is there. */
  async addSparse(name: string, path: string): Promise<void> {
    const { signal, onBytes } = this.options;
    const done = (bytes: number) => {
      this.#doneBytes += bytes;
      onBytes?.(this.#doneBytes);
    };
    const headerAt = this.#at;
    await this.#append(memberHeader(name, 0));
    const start = this.#at;
    await using source = await BinaryFile.open(path);
    await writeSparse(source, (bytes) => this.#append(bytes), done, signal);
    const sizeBytes = this.#at - start;
    await this.file.write(memberHeader(name, sizeBytes), headerAt);
    await this.#append(new Uint8Array(memberPadding(sizeBytes)));
  }

  async end(): Promise<void> {
    await this.#append(new Uint8Array(END_BYTES));
  }

  async #append(bytes: Uint8Array): Promise<void> {
    await this.file.write(bytes, this.#at);
    this.#at += bytes.length;
  }
}

/**
 * Reads a snapshot from a file and publishes it, checked to the last byte; its base before it, if that is in the file and not here. If anything
 * fails nothing of it is left.
 * @throws `snapshot_corrupt`; what `accept` throws; `template_not_found` if the base is neither here nor in the file; `name_in_use` if the id is
 * taken; `file_operation_failed`, `disk_full`, `cancelled`.
 */
export async function importSnapshot(
  store: SnapshotStore,
  path: string,
  host: ImportHost,
  options: ArchiveOptions = {},
): Promise<SnapshotManifest> {
  const place = await identityOf(path);
  if (place?.isFile !== true) {
    const why = place === undefined ? "there is no such file" : "it is no regular file";
    throw new MayflyError("file_operation_failed", `Cannot import ${path}: ${why}`, { details: { path } });
  }
  await using file = await BinaryFile.open(path);
  const archive = new ArchiveReader(file, place.sizeBytes, options);
  const manifest = decodeSnapshotManifest(await archive.read(MEMBERS.manifest), path);
  const { id, gid } = await host.accept(manifest);
  if (await store.has(id)) {
    throw new MayflyError("name_in_use", `Cannot import ${path}: snapshot ${id} is here already`);
  }
  const vm = await importImage(archive, manifest, host);
  const adopted = await importBase(archive, manifest.base, host, path);
  try {
    return await store.publishCopy({ ...manifest, id, vm }, gid, async ({ pagesPath, diskPath }) => {
      const deviceState = await archive.read(MEMBERS.deviceState);
      await archive.unpack(MEMBERS.pages, { path: pagesPath, sizeBytes: manifest.pages.sizeBytes });
      for (const disk of manifest.disks) {
        await archive.unpack(MEMBERS.disk(disk.file), { path: diskPath(disk), sizeBytes: disk.sizeBytes });
      }
      await archive.end();
      return deviceState;
    });
  } catch (error) {
    if (adopted) await host.removeBase(manifest.base.id);
    throw error;
  }
}

/** @returns what is kept of the VM. */
async function importImage(archive: ArchiveReader, manifest: SnapshotManifest, host: ImportHost): Promise<unknown> {
  if ((await archive.nextName()) !== MEMBERS.imageManifest) return host.takeImage(manifest, undefined);
  const image = await archive.read(MEMBERS.imageManifest);
  const passwd = await archive.read(MEMBERS.imagePasswd);
  const group = await archive.read(MEMBERS.imageGroup);
  const isIn = (await archive.nextName()) === MEMBERS.imageRootfs;
  let isRead = false;
  const fill = async (path: string, sizeBytes: number) => {
    isRead = true;
    await archive.unpack(MEMBERS.imageRootfs, { path, sizeBytes });
  };
  const vm = await host.takeImage(manifest, { manifest: image, passwd, group, fillRootfs: isIn ? fill : undefined });
  if (isIn && !isRead) await archive.skip(MEMBERS.imageRootfs);
  return vm;
}

/** @returns whether it has become this host's just now. */
async function importBase(
  archive: ArchiveReader,
  base: SnapshotBase,
  host: ImportHost,
  path: string,
): Promise<boolean> {
  const isHere = await host.hasBase(base);
  if ((await archive.nextName()) !== MEMBERS.baseManifest) {
    if (isHere) return false;
    const what = `Cannot import ${path}: its base template ${base.id} is neither in it nor on this host`;
    throw new MayflyError("template_not_found", `${what} (memory with checksum ${base.memory.sha256})`);
  }
  const manifest = await archive.read(MEMBERS.baseManifest);
  const deviceState = await archive.read(MEMBERS.baseDeviceState);
  if (isHere) {
    await archive.skip(MEMBERS.baseMemory);
    return false;
  }
  const fillMemory = (memoryPath: string) =>
    archive.unpack(MEMBERS.baseMemory, { path: memoryPath, sizeBytes: base.memory.sizeBytes });
  const isNew = await host.adoptBase(base.id, { manifest, deviceState, fillMemory });
  if (await host.hasBase(base)) return isNew;
  if (isNew) await host.removeBase(base.id);
  const where = isNew ? "in it" : "on this host";
  throw archive.corrupt(`the template ${base.id} ${where} has not the memory with checksum ${base.memory.sha256}`);
}

/** The error for a snapshot of another QEMU, kernel, CPU. @param differences one entry a field, as people read them. */
export function incompatible(manifest: SnapshotManifest, differences: readonly string[]): MayflyError {
  const what = `Cannot use snapshot ${manifest.id} on this host: ${differences.join("; ")}`;
  return new MayflyError("snapshot_incompatible", what, { details: { problems: differences } });
}
