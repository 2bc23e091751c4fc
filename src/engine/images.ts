/** Imported root file systems by name, and what `--rootfs` means. */
import { basename, isAbsolute } from "node:path";
import type { Image, ImportImageRequest } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import { importRootfs } from "../image/import.ts";
import { detectRootfs } from "../image/rootfs.ts";
import { imageDirectory, listImages, readAccounts, removeImage, sweepImages } from "../image/store.ts";
import { newId } from "../sys/ids.ts";
import type { Events } from "./events.ts";
import type { Host } from "./host.ts";
import { findImage } from "./image-names.ts";
import type { ProgressOptions } from "./interface.ts";

/** A root file system as a file on the host. */
export interface RootFile {
  path: string;
  fstype: "erofs" | "ext4";
}

/** An image with what a VM on it needs, none of which is read when it starts. */
export interface ResolvedImage {
  image: Image;
  rootfs: RootFile;
  /** `/etc/passwd` and `/etc/group` of the image; empty if it has none. */
  passwd: string;
  group: string;
}

/** The images of a state directory. */
export class Images {
  #images: Image[] = [];
  /** By the digest of contents. */
  readonly #accounts = new Map<string, { passwd: string; group: string }>();
  /** Names of VMs that run on the image of a name. */
  usedBy: (name: string) => string[] = () => [];

  constructor(
    private readonly host: Host,
    private readonly events: Events,
  ) {}

  /** Reads the names; what an interrupted import has left goes, and names whose image is gone. */
  async load(): Promise<void> {
    const { stateDir } = this.host.config;
    await sweepImages(stateDir);
    const stored = new Set(await listImages(stateDir));
    const recorded = this.host.records.images();
    this.#images = recorded.filter((image) => stored.has(image.digest));
    for (const image of recorded) if (!stored.has(image.digest)) this.host.records.removeImage(image.id);
    for (const { digest } of this.#images) this.#accounts.set(digest, await readAccounts(stateDir, digest));
  }

  list(): Image[] {
    return this.#images;
  }

  get(ref: string): Image {
    return findImage(this.#images, ref);
  }

  /** @throws `image_not_found`, `id_ambiguous`. Reads no file. */
  resolve(ref: string): ResolvedImage {
    const image = this.get(ref);
    const path = `${imageDirectory(this.host.config.stateDir, image.digest)}/rootfs.erofs`;
    const { passwd = "", group = "" } = this.#accounts.get(image.digest) ?? {};
    return { image, rootfs: { path, fstype: image.fstype }, passwd, group };
  }

  /** Imports a tarball under a name, which moves to it if another image had it (as docker's tags do). */
  async import(request: ImportImageRequest, { onProgress, deadline }: ProgressOptions): Promise<Image> {
    if (!isAbsolute(request.path)) {
      throw new MayflyError("invalid_argument", `Cannot import ${request.path}: the path is not absolute`);
    }
    const { signal } = deadline;
    const { manifest } = await importRootfs({
      stateDir: this.host.config.stateDir,
      tarballPath: request.path,
      ...(signal === undefined ? {} : { signal }),
      onProgress: (stage, bytes) => onProgress?.(`${stage} ${(bytes / 2 ** 20).toFixed(0)} MiB`),
    });
    const { digest, fstype, sizeBytes } = manifest;
    const createdAt = new Date().toISOString();
    const unknown = {
      ...{ configDigest: null, manifestDigest: null, repoDigest: null, architecture: null, builtAt: null },
      ...{ layers: [], config: {} },
    };
    this.#accounts.set(digest, await readAccounts(this.host.config.stateDir, digest));
    const image: Image = { id: newId("img"), name: request.name, digest, fstype, sizeBytes, createdAt, ...unknown };
    const replaced = this.#images.find((other) => other.name === request.name);
    try {
      // A name is there once: its row takes the place of the other's.
      this.host.records.putImage(image);
    } catch (error) {
      if (!this.#images.some((other) => other.digest === digest)) await removeImage(this.host.config.stateDir, digest);
      throw error;
    }
    if (replaced !== undefined) await this.#drop(replaced, digest);
    this.#images = [...this.#images, image];
    this.events.emit("image.imported", image.id, image.name, { digest });
    return image;
  }

  /** @throws `resource_in_use` while VMs run on it. */
  async remove(ref: string): Promise<void> {
    const image = this.get(ref);
    const users = this.usedBy(image.name);
    if (users.length > 0) {
      throw new MayflyError("resource_in_use", `Cannot remove image ${image.name}: ${users.join(", ")} runs on it`);
    }
    await this.#drop(image, undefined);
    this.events.emit("image.removed", image.id, image.name);
  }

  /** @throws `image_not_found` for a name, `rootfs_invalid` for a file that is neither erofs nor ext4. */
  async resolveRootfs(rootfs: string): Promise<RootFile> {
    if (isAbsolute(rootfs)) {
      const { fstype } = await detectRootfs(rootfs);
      return { path: rootfs, fstype };
    }
    const image = this.#images.find((candidate) => candidate.name === rootfs) ?? this.#named(rootfs);
    return { path: `${imageDirectory(this.host.config.stateDir, image.digest)}/rootfs.erofs`, fstype: image.fstype };
  }

  #named(rootfs: string): Image {
    if (!rootfs.includes("/")) return this.get(rootfs);
    const hint = `a file needs its absolute path; import a tarball with: mayfly image import ${basename(rootfs)} FILE.tar`;
    throw new MayflyError("image_not_found", `There is no image ${JSON.stringify(rootfs)}; ${hint}`);
  }

  /** Forgets a name; the files go when no other name has them and `keepDigest` is not theirs. */
  async #drop(image: Image, keepDigest: string | undefined): Promise<void> {
    this.#images = this.#images.filter((other) => other.id !== image.id);
    this.host.records.removeImage(image.id);
    const shared = this.#images.some((other) => other.digest === image.digest);
    if (!shared && image.digest !== keepDigest) await removeImage(this.host.config.stateDir, image.digest);
  }
}
