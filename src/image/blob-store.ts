/**
 * Blobs of images as they came, `STATE/images/blobs/sha256/DIGEST`: configurations, manifests, and layers, compressed or not. VMs do not
 * need them; what is pulled next and shares layers does, and so does what is built on an image.
 */

import { MayflyError } from "../contract/errors.ts";
import { identityOf, linkFile, makeDirectory, namesIn, readBytes, removePath } from "../sys/paths.ts";
import { publishFile, sha256File, syncFile } from "../sys/publish.ts";

/** Directory of all blobs. */
export function blobsDirectory(stateDir: string): string {
  return `${stateDir}/images/blobs/sha256`;
}

/** Where a blob is, if the store has it. */
export function blobPath(stateDir: string, digest: string): string {
  return `${blobsDirectory(stateDir)}/${digest.slice("sha256:".length)}`;
}

/** Whether the store has a blob of this size. */
export async function hasBlob(stateDir: string, digest: string, sizeBytes: number): Promise<boolean> {
  return (await identityOf(blobPath(stateDir, digest)))?.sizeBytes === sizeBytes;
}

/** Puts bytes into the store. */
export async function storeBytes(stateDir: string, digest: string, bytes: Uint8Array): Promise<void> {
  if (await hasBlob(stateDir, digest, bytes.length)) return;
  await makeDirectory(blobsDirectory(stateDir), 0o700);
  await publishFile(blobPath(stateDir, digest), bytes, 0o400);
}

/** Puts a file of the same file system, whose digest has been checked and that nobody changes any more, into the store. It stays where it is, too. */
export async function storeFile(stateDir: string, digest: string, path: string): Promise<void> {
  const place = blobPath(stateDir, digest);
  await makeDirectory(blobsDirectory(stateDir), 0o700);
  const [there, given] = await Promise.all([identityOf(place), identityOf(path)]);
  if (there !== undefined && there.sizeBytes !== given?.sizeBytes) await removePath(place);
  syncFile(path);
  await linkFile(path, place);
}

/** A document of the store. @throws MayflyError `store_corrupt` if it is missing or damaged. */
export async function readDocument(stateDir: string, digest: string): Promise<Uint8Array> {
  const path = blobPath(stateDir, digest);
  const known = await identityOf(path);
  if (known === undefined)
    throw new MayflyError("store_corrupt", `The store lacks the blob ${digest}`, { details: { path } });
  await checkBlob(path, digest);
  return readBytes(path);
}

/** Checks a file against the digest that it must have. @throws MayflyError `image_invalid`. */
export async function checkBlob(path: string, digest: string): Promise<void> {
  const found = `sha256:${await sha256File(path)}`;
  if (found === digest) return;
  throw new MayflyError("image_invalid", `Cannot use the blob ${digest}: its bytes have the digest ${found}`);
}

/** Removes blobs that `used` does not have. @returns how many. */
export async function sweepBlobs(stateDir: string, used: ReadonlySet<string>): Promise<number> {
  let removed = 0;
  for (const name of await namesIn(blobsDirectory(stateDir))) {
    if (used.has(`sha256:${name}`)) continue;
    await removePath(`${blobsDirectory(stateDir)}/${name}`);
    removed++;
  }
  return removed;
}
