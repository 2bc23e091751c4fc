/**
 * The store of images' contents, `STATE/images/sha256/DIGEST/{rootfs.erofs,manifest.json,passwd,group}`: each complete or not there.
 *
 * The digest is OCI's "chain id" of the layers; of one layer (an imported tarball) it is the SHA-256 of the uncompressed tarball. It does not
 * depend on how layers were compressed, nor on which mkfs.erofs made the file system of them.
 */

import { MayflyError } from "../contract/errors.ts";
import { type FileLock, tryLockFile } from "../sys/lock.ts";
import { makeDirectory, namesIn, readOptional, removePath } from "../sys/paths.ts";
import { exists } from "../sys/publish.ts";

/** What is known of an image; `manifest.json`. */
export interface ImageManifest {
  magic: "mayfly-image";
  version: 1;
  /** `sha256:` and 64 hexadecimal digits. */
  digest: string;
  fstype: "erofs";
  /** Of `rootfs.erofs`. */
  sizeBytes: number;
  sha256: string;
  /** Entries of the tarballs, and the sum of their files' sizes. */
  entries: number;
  contentBytes: number;
  /** ISO 8601. */
  createdAt: string;
}

/** An image in the store. */
export interface StoredImage {
  manifest: ImageManifest;
  /** Absolute path of its erofs image. */
  rootfsPath: string;
}

const DIGEST = /^sha256:[0-9a-f]{64}$/;
const WORK_PREFIX = ".import-";
const LOCK_NAME = "lock";

/** Lock of whoever makes the contents with a digest. */
export function contentLockPath(stateDir: string, digest: string): string {
  return `${stateDir}/images/locks/${digest.slice("sha256:".length)}`;
}

/** Directory that holds images and imports at work. */
export function imagesDirectory(stateDir: string): string {
  return `${stateDir}/images/sha256`;
}

/** Directory of one image. @throws MayflyError `invalid_argument` for what is no digest. */
export function imageDirectory(stateDir: string, digest: string): string {
  if (!DIGEST.test(digest)) {
    throw new MayflyError(
      "invalid_argument",
      `${JSON.stringify(digest)} is no image digest (sha256: and 64 hexadecimal digits)`,
    );
  }
  return `${imagesDirectory(stateDir)}/${digest.slice("sha256:".length)}`;
}

/** An image of the store. @throws MayflyError `image_not_found`; `store_corrupt` if its manifest is damaged. */
export async function openImage(stateDir: string, digest: string): Promise<StoredImage> {
  const directory = imageDirectory(stateDir, digest);
  const text = await readOptional(`${directory}/manifest.json`);
  const rootfsPath = `${directory}/rootfs.erofs`;
  if (text === undefined || !(await exists(rootfsPath))) {
    throw new MayflyError("image_not_found", `There is no image ${digest} in ${imagesDirectory(stateDir)}`);
  }
  const manifest = parseManifest(text);
  if (manifest?.digest === digest) return { manifest, rootfsPath };
  throw new MayflyError("store_corrupt", `The manifest of image ${digest} is damaged`, {
    details: { path: `${directory}/manifest.json` },
  });
}

/** `/etc/passwd` and `/etc/group` of an image, as they were kept with it; empty if it has none. */
export async function readAccounts(stateDir: string, digest: string): Promise<{ passwd: string; group: string }> {
  const directory = imageDirectory(stateDir, digest);
  const [passwd = "", group = ""] = await Promise.all([
    readOptional(`${directory}/passwd`),
    readOptional(`${directory}/group`),
  ]);
  return { passwd, group };
}

/** Digests of all images in the store, sorted. */
export async function listImages(stateDir: string): Promise<string[]> {
  const names = await namesIn(imagesDirectory(stateDir));
  return names.map((name) => `sha256:${name}`).filter((digest) => DIGEST.test(digest));
}

/** Removes an image; one that is not there is no error. VMs that have it open keep it. */
export async function removeImage(stateDir: string, digest: string): Promise<void> {
  await removePath(imageDirectory(stateDir, digest));
}

/** A directory in which one import works, held by a lock that ends with the process. */
export interface ImportWorkplace extends AsyncDisposable {
  path: string;
}

/** Makes a workplace on the file system of the store. Disposing it removes it. */
export async function openWorkplace(stateDir: string, name: string): Promise<ImportWorkplace> {
  const path = `${imagesDirectory(stateDir)}/${WORK_PREFIX}${name}`;
  await makeDirectory(path, 0o700);
  const lock: FileLock | undefined = tryLockFile(`${path}/${LOCK_NAME}`);
  if (lock === undefined) throw new Error(`the import directory ${path} is in use`);
  return {
    path,
    async [Symbol.asyncDispose]() {
      await removePath(path);
      lock[Symbol.dispose]();
    },
  };
}

/**
 * Removes what imports that were killed have left. Imports at work, in any process, are left alone.
 *
 * @returns how many were removed.
 */
export async function sweepImages(stateDir: string): Promise<number> {
  const directory = imagesDirectory(stateDir);
  let removed = 0;
  for (const name of (await namesIn(directory)).filter((entry) => entry.startsWith("."))) {
    const lock = tryLockFile(`${directory}/${name}/${LOCK_NAME}`);
    if (lock === undefined) continue;
    await removePath(`${directory}/${name}`);
    lock[Symbol.dispose]();
    removed++;
  }
  const locks = `${stateDir}/images/locks`;
  for (const name of await namesIn(locks)) tryLockFile(`${locks}/${name}`, { removeAfter: true })?.[Symbol.dispose]();
  return removed;
}

/** A manifest's file; undefined: it is none. */
export function parseManifest(text: string): ImageManifest | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isManifest(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

function isManifest(value: unknown): value is ImageManifest {
  if (typeof value !== "object" || value === null) return false;
  const entries = new Map<string, unknown>(Object.entries(value));
  const numbers = ["sizeBytes", "entries", "contentBytes"];
  return (
    entries.get("magic") === "mayfly-image" &&
    entries.get("version") === 1 &&
    DIGEST.test(String(entries.get("digest"))) &&
    entries.get("fstype") === "erofs" &&
    numbers.every((key) => Number.isSafeInteger(entries.get(key)))
  );
}
