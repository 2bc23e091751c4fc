/** Files of the stores as the engine and the templates need them: made with their owner and mode, sealed, looked at, removed. */
import { closeSync, mkdirSync, openSync, readdirSync, rmSync, statSync } from "node:fs";
import { chmod, chown, lstat, open } from "node:fs/promises";

/** What tells a file from another that took its place. */
export interface PlacedFile {
  sizeBytes: number;
  inode: number;
}

/** Size and inode of a file, at once: it is looked at on the path of every clone. @returns undefined if there is none. */
export function placedFile(path: string): PlacedFile | undefined {
  const stat = statSync(path, { throwIfNoEntry: false });
  return stat === undefined ? undefined : { sizeBytes: stat.size, inode: stat.ino };
}

/** Size of a file, links not followed. @returns undefined if there is none. */
export async function fileSize(path: string): Promise<number | undefined> {
  return lstat(path).then(
    (stat) => stat.size,
    () => undefined,
  );
}

/** Makes a new file with contents, or with a size of nothing but a hole. @throws what the file system says, EEXIST too. */
export async function newFile(
  path: string,
  content: string | Uint8Array | { holeBytes: number },
  mode: number,
): Promise<void> {
  const file = await open(path, "wx", mode);
  try {
    if (typeof content === "object" && "holeBytes" in content) await file.truncate(content.holeBytes);
    else await file.writeFile(content);
    await file.chmod(mode);
  } finally {
    await file.close();
  }
}

/** Writes a file that exists, which keeps its owner and mode. */
export async function overwriteFile(path: string, content: Uint8Array): Promise<void> {
  const file = await open(path, "r+");
  try {
    await file.truncate(0);
    await file.writeFile(content);
  } finally {
    await file.close();
  }
}

/** An open file. */
export interface OpenFile extends Disposable {
  fd: number;
}

/** Opens a file that exists for reading and writing, for somebody who writes into it from outside. */
export function openToWrite(path: string): OpenFile {
  const fd = openSync(path, "r+");
  return { fd, [Symbol.dispose]: () => closeSync(fd) };
}

/** Gives a file to a user and group. */
export async function giveTo(path: string, uid: number, gid: number): Promise<void> {
  await chown(path, uid, gid);
}

/** Gives a file to root and a group, and sets its mode. */
export async function seal(path: string, gid: number, mode: number): Promise<void> {
  await chown(path, 0, gid);
  await chmod(path, mode);
}

/** Sets a mode whatever the umask is. */
export async function setMode(path: string, mode: number): Promise<void> {
  await chmod(path, mode);
}

/** Makes a directory and those above it, if they are missing. */
export function ensureDirectory(path: string, mode: number): void {
  mkdirSync(path, { recursive: true, mode });
}

/** Names in a directory, at once; none if it is missing. */
export function namesBelow(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

/** Removes a file or a tree; nothing there is no error. */
export function removeTree(path: string): void {
  rmSync(path, { recursive: true, force: true });
}

/** Why a device cannot be opened for reading and writing. @returns undefined if it can. */
export function deviceProblem(path: string): string | undefined {
  try {
    closeSync(openSync(path, "r+"));
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
