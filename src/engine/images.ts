/** The images of a state directory: their names, what VMs on them need, and what of the store nobody needs any more. */
import { basename, isAbsolute } from "node:path";
import { type Image, type ImageDetails, type ImageLayer, NO_NAME } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import { familiarName, formatReference, parseReference } from "../contract/reference.ts";
import { blobPath, readDocument, sweepBlobs } from "../image/blob-store.ts";
import { buildDirectory, removeBuildCache } from "../image/buildah.ts";
import { parseJson } from "../image/oci-documents.ts";
import { detectRootfs } from "../image/rootfs.ts";
import {
  imageDirectory,
  listImages,
  readAccounts,
  removeImage,
  type StoredImage,
  sweepImages,
} from "../image/store.ts";
import { allocatedBytesBelow, allocatedBytesOf } from "../sys/allocated.ts";
import { newId } from "../sys/ids.ts";
import type { Events } from "./events.ts";
import { byName, findImage, identityOf, isIdPrefix } from "./image-names.ts";
import type { Records } from "./records.ts";

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

/** What is known of an image before it has a name here. */
export type NewImage = Omit<Image, "id" | "name" | "createdAt">;

const NO_CONFIGURATION = {
  ...{ configDigest: null, manifestDigest: null, repoDigest: null, architecture: null, builtAt: null },
  ...{ layers: [], config: {} },
};

/** What images need of their host. */
export interface ImageHost {
  config: { stateDir: string };
  records: Pick<Records, "images" | "putImages" | "removeImage">;
}

/** The images of a state directory. */
export class Images {
  #images: Image[] = [];
  /** By the digest of contents. */
  readonly #accounts = new Map<string, { passwd: string; group: string }>();
  /** Operations that put things into the store which no name refers to yet. */
  #adding = 0;
  #collecting: Promise<void> | undefined;
  /** Names of the VMs that run on an image. */
  usedBy: (image: Image) => string[] = () => [];
  /** Who has contents with this digest as their root, in words: templates, snapshots, VMs. */
  neededBy: (digest: string) => string[] = () => [];

  constructor(
    private readonly host: ImageHost,
    private readonly events: Events,
  ) {}

  /** Reads the names; names whose image is gone go. What no name is left of goes with {@link collect}. */
  async load(): Promise<void> {
    const { stateDir } = this.host.config;
    await sweepImages(stateDir);
    const stored = new Set(await listImages(stateDir));
    const recorded = this.host.records.images();
    this.#images = recorded.filter((image) => stored.has(image.digest));
    for (const image of recorded) if (!stored.has(image.digest)) this.host.records.removeImage(image.id);
    for (const { digest } of this.#images) this.#accounts.set(digest, await readAccounts(stateDir, digest));
  }

  /** Removes what an interrupted import has left. To be called once it is known who needs what: VMs, templates, snapshots. */
  collect(): Promise<void> {
    return this.#collect();
  }

  list(): Image[] {
    return this.#images;
  }

  /** @throws `image_not_found`, `id_ambiguous`. */
  get(ref: string): Image {
    return findImage(this.#images, ref);
  }

  /** The image that has exactly this name, completed as docker does. */
  named(name: string): Image | undefined {
    return byName(this.#images, name);
  }

  /** Layers whose blobs the store has. */
  layers(): ImageLayer[] {
    return this.#images.flatMap((image) => image.layers);
  }

  /** @throws `image_not_found`, `id_ambiguous`. Reads no file. */
  resolve(ref: string): ResolvedImage {
    const image = this.get(ref);
    const path = `${imageDirectory(this.host.config.stateDir, image.digest)}/rootfs.erofs`;
    const { passwd = "", group = "" } = this.#accounts.get(image.digest) ?? {};
    return { image, rootfs: { path, fstype: image.fstype }, passwd, group };
  }

  /** An image with its configuration whole. @throws `image_not_found`, `id_ambiguous`, `store_corrupt`. */
  async details(ref: string): Promise<ImageDetails> {
    const image = this.get(ref);
    if (image.configDigest === null) return { ...image, document: null };
    const bytes = await readDocument(this.host.config.stateDir, image.configDigest);
    return { ...image, document: parseJson(bytes, image.name) };
  }

  /** @throws `image_not_found` for a name, `rootfs_invalid` for a file that is neither erofs nor ext4. */
  async resolveRootfs(rootfs: string): Promise<RootFile> {
    if (isAbsolute(rootfs)) {
      const { fstype } = await detectRootfs(rootfs);
      return { path: rootfs, fstype };
    }
    const isPath = rootfs.includes("/") && byName(this.#images, rootfs) === undefined;
    if (!isPath) return this.resolve(rootfs).rootfs;
    const hint = `a file needs its absolute path; import a tarball with: mayfly image import ${basename(rootfs)} FILE.tar`;
    throw new MayflyError("image_not_found", `There is no image ${JSON.stringify(rootfs)}; ${hint}`);
  }

  /** Does what puts things into the store; what has no name when it ends, however it ends, goes. */
  async adding<T>(work: () => Promise<T>): Promise<T> {
    while (this.#collecting !== undefined) await this.#collecting;
    this.#adding++;
    try {
      return await work();
    } finally {
      this.#adding--;
      await this.#collect();
    }
  }

  /**
   * Gives an image of the store its names, which move to it from whatever had them. Without any it keeps those that it has, or is listed
   * without one. Only within {@link adding}.
   * @returns an entry for each name. @throws `disk_full`.
   */
  async add(image: NewImage, names: readonly string[]): Promise<Image[]> {
    this.#accounts.set(image.digest, await readAccounts(this.host.config.stateDir, image.digest));
    if (names.length > 0) return [...new Set(names)].map((name) => this.#name(image, name));
    const known = this.#images.filter((other) => identityOf(other) === identityOf(image));
    return known.length > 0 ? known : [this.#name(image, NO_NAME)];
  }

  /** As {@link add}, for contents of which nothing else is known. */
  addContents({ manifest: { digest, fstype, sizeBytes } }: StoredImage, names: readonly string[]): Promise<Image[]> {
    return this.add({ ...NO_CONFIGURATION, digest, fstype, sizeBytes }, names);
  }

  /** Gives an image one more name. @returns its entry under that name. @throws `image_not_found`, `invalid_argument`, `disk_full`. */
  async tag(ref: string, name: string): Promise<Image> {
    const { id: _id, name: _name, createdAt: _createdAt, repoDigest: _repoDigest, ...image } = this.get(ref);
    const reference = parseReference(name);
    if (reference.digest !== undefined) {
      throw new MayflyError("invalid_argument", `Cannot tag an image as ${name}: a name that is given has no digest`);
    }
    return this.adding(async () => {
      const tagged = this.#name({ ...image, repoDigest: null }, formatReference(reference));
      this.events.emit("image.tagged", tagged.id, tagged.name, { digest: tagged.digest });
      return tagged;
    });
  }

  /**
   * Takes a name away, and the image with its last one. By the beginning of an id the image goes with all its names.
   * @returns the names that went.
   * @throws `resource_in_use` while VMs run on it, while a template needs it, and for an id of several names unless forced.
   */
  async remove(ref: string, force = false): Promise<string[]> {
    const image = this.get(ref);
    const isWhole = isIdPrefix(this.#images, ref);
    const removed = isWhole ? this.#images.filter((other) => identityOf(other) === identityOf(image)) : [image];
    if (removed.length > 1 && !force) {
      const names = removed.map(({ name }) => familiarName(name)).join(", ");
      throw inUse(ref, `it has several names: ${names}`, "--force removes all of them");
    }
    this.#checkUse(ref, removed);
    return this.adding(async () => {
      for (const { id } of removed) this.#drop(id);
      for (const { id, name } of removed) this.events.emit("image.removed", id, name);
      return removed.map(({ name }) => name);
    });
  }

  /**
   * Removes images whose name has moved on; with `all` every one that no VM and no template uses. With them goes the cache of builds.
   * @returns names, or ids of those without.
   */
  async prune(all: boolean): Promise<string[]> {
    const unused = this.#images.filter((image) => (all || image.name === NO_NAME) && this.#isUnused(image));
    return this.adding(async () => {
      for (const { id } of unused) this.#drop(id);
      for (const { id, name } of unused) this.events.emit("image.removed", id, name);
      await removeBuildCache(this.host.config.stateDir);
      return unused.map(({ id, name }) => (name === NO_NAME ? id : name));
    });
  }

  /** What {@link prune} would free without `all`. */
  async reclaimableBytes(): Promise<number> {
    const { stateDir } = this.host.config;
    const isGone = (image: Image) => image.name === NO_NAME && this.#isUnused(image);
    const kept = new Set(this.#images.filter((image) => !isGone(image)).flatMap(digestsOf));
    const gone = new Set(this.#images.filter(isGone).flatMap(digestsOf));
    let bytes = await allocatedBytesBelow(buildDirectory(stateDir));
    for (const digest of gone) {
      if (kept.has(digest)) continue;
      bytes += await allocatedBytesBelow(imageDirectory(stateDir, digest));
      bytes += await allocatedBytesOf(blobPath(stateDir, digest));
    }
    return bytes;
  }

  #isUnused(image: Image): boolean {
    return this.usedBy(image).length === 0 && this.neededBy(image.digest).length === 0;
  }

  /** Whoever had the name keeps it not; if it was the last one of an image that is no imported tarball, or that a VM uses, that stays without a name. */
  #name(image: NewImage, name: string): Image {
    const before = name === NO_NAME ? undefined : this.#images.find((other) => other.name === name);
    const isSame = (other: Image) => identityOf(other) === identityOf(image);
    const nameless = this.#images.find((other) => other.name === NO_NAME && isSame(other));
    const reused = before !== undefined && isSame(before) ? before : nameless;
    const { id = newId("img"), createdAt = new Date().toISOString() } = reused ?? {};
    const named: Image = { id, name, ...image, createdAt };
    const moved = before === undefined || before.id === id ? undefined : before;
    const isKept = moved !== undefined && (this.usedBy(moved).length > 0 || this.#isLastOf(moved));
    const written = isKept ? [{ ...moved, name: NO_NAME, repoDigest: null }, named] : [named];
    this.host.records.putImages(written);
    const gone = new Set([id, ...(moved === undefined ? [] : [moved.id])]);
    this.#images = [...this.#images.filter((other) => !gone.has(other.id)), ...written];
    return named;
  }

  #isLastOf(image: Image): boolean {
    if (image.configDigest === null) return false;
    return !this.#images.some((other) => other.id !== image.id && identityOf(other) === identityOf(image));
  }

  #checkUse(ref: string, removed: readonly Image[]): void {
    for (const image of removed) {
      const vms = this.usedBy(image);
      if (vms.length > 0) throw inUse(ref, `${vms.join(", ")} ${vms.length === 1 ? "runs" : "run"} on it`);
      const isShared = this.#images.some((other) => other.digest === image.digest && !removed.includes(other));
      const needed = isShared ? [] : this.neededBy(image.digest);
      if (needed.length > 0) throw inUse(ref, `${needed.join(", ")} ${needed.length === 1 ? "needs" : "need"} it`);
    }
  }

  #drop(id: string): void {
    this.#images = this.#images.filter((other) => other.id !== id);
    this.host.records.removeImage(id);
  }

  /** Removes contents and blobs that no image refers to, unless something is being added: then when that has ended. */
  async #collect(): Promise<void> {
    while (this.#adding === 0 && this.#collecting !== undefined) await this.#collecting;
    if (this.#adding > 0) return;
    this.#collecting = this.#sweep().finally(() => {
      this.#collecting = undefined;
    });
    await this.#collecting;
  }

  async #sweep(): Promise<void> {
    const { stateDir } = this.host.config;
    const contents = new Set(this.#images.map(({ digest }) => digest));
    for (const digest of await listImages(stateDir)) {
      if (contents.has(digest) || this.neededBy(digest).length > 0) continue;
      await removeImage(stateDir, digest);
      this.#accounts.delete(digest);
    }
    await sweepBlobs(stateDir, new Set(this.#images.flatMap(digestsOf)));
  }
}

/** Of contents and blobs: whatever the store has of an image. */
function digestsOf({ digest, configDigest, manifestDigest, layers }: Image): string[] {
  const documents = [configDigest, manifestDigest].filter((known) => known !== null);
  return [digest, ...documents, ...layers.map((layer) => layer.digest)];
}

function inUse(ref: string, why: string, remedy?: string): MayflyError {
  return new MayflyError("resource_in_use", `Cannot remove image ${ref}: ${why}`, {
    details: remedy === undefined ? {} : { remedy },
  });
}
