/** Atomic publishing: a file or a directory is there complete and on disk, or not at all. */

import { createHash, randomBytes } from "node:crypto";
import { closeSync, fsyncSync, openSync } from "node:fs";
import { lstat, mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { MayflyError } from "../contract/errors.ts";

/** Prefix of the names under which things lie beside their place until they are complete. */
const UNFINISHED = ".unfinished-";

/**
 * Writes a file beside `path`, syncs it and renames it into place; the directory is made if missing.
 *
 * @throws MayflyError `disk_full`; other failures of the file system come as they are.
 */
export async function publishFile(path: string, content: string | Uint8Array, mode = 0o644): Promise<void> {
  const beside = besideName(path);
  try {
    await mkdir(dirname(path), { recursive: true });
    const file = await open(beside, "wx", mode);
    try {
      await file.writeFile(content);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(beside, path);
    syncPath(dirname(path));
  } catch (error) {
    await rm(beside, { force: true });
    throw diskFull(error, path);
  }
}

/**
 * Publishes a directory: `build` fills an empty one beside `path`, which is synced and renamed into place. If another
 * process publishes the same path meanwhile, that one stays and this one's work is dropped.
 *
 * @returns whether this call's directory is the one in place.
 * @throws whatever `build` throws, and MayflyError `disk_full`; nothing is left beside in either case.
 */
export async function publishDirectory(path: string, build: (directory: string) => Promise<void>): Promise<boolean> {
  const beside = besideName(path);
  try {
    await mkdir(dirname(path), { recursive: true });
    await mkdir(beside, { mode: 0o755 });
    await build(beside);
    return await publishTree(beside, path);
  } catch (error) {
    await rm(beside, { recursive: true, force: true });
    throw diskFull(error, path);
  }
}

/**
 * Publishes a complete directory of the same file system under its name: synced, then renamed. If there is one already, that one
 * stays and the other is removed.
 *
 * @returns whether `directory` is the one in place.
 */
export async function publishTree(directory: string, path: string): Promise<boolean> {
  await syncTree(directory);
  try {
    await rename(directory, path);
  } catch (error) {
    if (!isTaken(error) || !(await exists(path))) throw error;
    await rm(directory, { recursive: true, force: true });
    return false;
  }
  syncPath(dirname(path));
  return true;
}

/**
 * Does something with a file beside `path` that is gone afterwards, whatever happens: {@link sweepUnfinished} finds one of a process that was
 * killed.
 */
export async function withFileBeside<T>(path: string, work: (beside: string) => Promise<T>): Promise<T> {
  const beside = besideName(path);
  try {
    await mkdir(dirname(path), { recursive: true });
    await (await open(beside, "wx", 0o600)).close();
    return await work(beside);
  } finally {
    await rm(beside, { force: true });
  }
}

/**
 * Takes a published directory out of sight, so that nobody finds a part of it while it is being removed.
 *
 * @returns where it lies now; {@link sweepUnfinished} removes it there too.
 */
export async function withdrawTree(path: string): Promise<string> {
  const beside = besideName(path);
  await rename(path, beside);
  syncPath(dirname(path));
  return beside;
}

/**
 * Removes from `directory` what an interrupted publishing has left there. Call it only while no other process can be
 * publishing into it.
 *
 * @returns the names removed.
 */
export async function sweepUnfinished(directory: string): Promise<string[]> {
  const names = await readdir(directory).catch(() => []);
  const left = names.filter((name) => name.startsWith(UNFINISHED));
  for (const name of left) await rm(join(directory, name), { recursive: true, force: true });
  return left;
}

/** Whether something is at `path`, a dangling symbolic link included. */
export async function exists(path: string): Promise<boolean> {
  return lstat(path).then(
    () => true,
    () => false,
  );
}

/** SHA-256 of a file, in lower-case hexadecimal. */
export async function sha256File(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of Bun.file(path).stream()) hash.update(chunk);
  return hash.digest("hex");
}

function besideName(path: string): string {
  return join(dirname(path), `${UNFINISHED}${basename(path)}-${randomBytes(6).toString("hex")}`);
}

/** Syncs every file and directory below `directory`, and itself. */
async function syncTree(directory: string): Promise<void> {
  for (const entry of await readdir(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) await syncTree(path);
    else if (entry.isFile()) syncPath(path);
  }
  syncPath(directory);
}

/** Brings a file to the disk. */
export function syncFile(path: string): void {
  syncPath(path);
}

function syncPath(path: string): void {
  const fd = openSync(path, "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function errnoOf(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined;
}

function isTaken(error: unknown): boolean {
  return ["EEXIST", "ENOTEMPTY"].includes(errnoOf(error) ?? "");
}

/** Turns a full disk or quota into `disk_full`; everything else is returned as it came. */
export function diskFull(error: unknown, path: string): unknown {
  const errno = errnoOf(error);
  if (errno !== "ENOSPC" && errno !== "EDQUOT") return error;
  return new MayflyError("disk_full", `Cannot write ${path}: no space left on its file system (${errno})`, {
    details: { path },
    cause: error,
  });
}
