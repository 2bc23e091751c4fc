/** Small operations on files and directories, for set-up and image import. */

import {
  access,
  chmod,
  constants,
  copyFile,
  link,
  lutimes,
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  readlink,
  realpath,
  rename,
  rm,
  stat,
  statfs,
  symlink,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

/** What tells one state of a file from another without reading it. */
export interface FileIdentity {
  sizeBytes: number;
  mtimeMs: number;
  isFile: boolean;
  isDirectory: boolean;
}

/** Whether this process is root's. */
export function isRoot(): boolean {
  return process.geteuid?.() === 0;
}

/** Text of a file, or `undefined` if it is missing. */
export async function readOptional(path: string): Promise<string | undefined> {
  return readFile(path, "utf8").catch((error: unknown) => {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  });
}

/** Whether a directory is missing or has nothing in it. */
export async function isDirectoryEmpty(path: string): Promise<boolean> {
  return (await namesIn(path)).length === 0;
}

/** Bytes of a file. */
export async function readBytes(path: string): Promise<Uint8Array> {
  return readFile(path);
}

/** The first `length` bytes of a file, fewer if it is shorter. */
export async function readStart(path: string, length: number): Promise<Uint8Array> {
  const file = await open(path, "r");
  try {
    const buffer = new Uint8Array(length);
    const { bytesRead } = await file.read(buffer, 0, length, 0);
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

/** Writes a file plainly: for places that nobody else sees yet. */
export async function writeText(path: string, content: string | Uint8Array, mode = 0o644): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, content);
  await chmod(path, mode);
}

/** Writes a new file, which only its owner may read, as its bytes come. */
export async function writeStream(path: string, content: AsyncIterable<Uint8Array>): Promise<void> {
  const file = await open(path, "wx", 0o600);
  try {
    for await (const chunk of content) await file.writeFile(chunk);
  } finally {
    await file.close();
  }
}

/** Makes a directory and its parents; it has `mode` whatever the umask. */
export async function makeDirectory(path: string, mode = 0o755): Promise<void> {
  await mkdir(path, { recursive: true });
  await chmod(path, mode);
}

/** Size, time and kind, symbolic links followed; `undefined` if there is nothing. */
export async function identityOf(path: string): Promise<FileIdentity | undefined> {
  return stat(path).then(
    (s) => ({ sizeBytes: s.size, mtimeMs: s.mtimeMs, isFile: s.isFile(), isDirectory: s.isDirectory() }),
    () => undefined,
  );
}

/** Names in a directory, sorted; none if it is missing. */
export async function namesIn(path: string): Promise<string[]> {
  return readdir(path).then(
    (names) => names.sort(),
    () => [],
  );
}

/** Paths of all regular files below a directory, relative to it and sorted; none if it is missing. */
export async function filesBelow(path: string): Promise<string[]> {
  return (await walk(path, "")).filter((entry) => entry.isFile).map((entry) => entry.name);
}

/** Paths of everything below a directory, directories and links included, relative to it; parents before children. */
export async function treeBelow(path: string): Promise<string[]> {
  return (await walk(path, "")).map((entry) => entry.name);
}

/** Walks a tree without following links (readdir's own recursion follows those to directories). */
async function walk(root: string, prefix: string): Promise<{ name: string; isFile: boolean }[]> {
  const found: { name: string; isFile: boolean }[] = [];
  const entries = await readdir(join(root, prefix), { withFileTypes: true }).catch(() => []);
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const name = prefix === "" ? entry.name : `${prefix}/${entry.name}`;
    found.push({ name, isFile: entry.isFile() });
    if (entry.isDirectory()) found.push(...(await walk(root, name)));
  }
  return found;
}

/** Copies a file's bytes and mode, parents made. */
export async function copyPath(from: string, to: string): Promise<void> {
  await mkdir(dirname(to), { recursive: true });
  await copyFile(from, to);
}

/** Moves a file or directory on the same file system, parents of the target made. */
export async function movePath(from: string, to: string): Promise<void> {
  await mkdir(dirname(to), { recursive: true });
  await rename(from, to);
}

/** Removes a file or a tree; nothing there is no error. */
export async function removePath(path: string): Promise<void> {
  await rm(path, { recursive: true, force: true });
}

/** Where a symbolic link points, as it stands in it. */
export async function linkTarget(path: string): Promise<string> {
  return readlink(path);
}

/** Gives a file one more name on its file system; whatever has that name already stays. */
export async function linkFile(path: string, name: string): Promise<void> {
  await link(path, name).catch((error: unknown) => {
    if (!(error instanceof Error && "code" in error && error.code === "EEXIST")) throw error;
  });
}

/** Makes a symbolic link. */
export async function makeLink(target: string, path: string): Promise<void> {
  await symlink(target, path);
}

/** Sets both times of files, directories and links (themselves, not what they point to) to the same fixed second. */
export async function setTimes(paths: readonly string[], seconds = 0): Promise<void> {
  for (const path of paths) await lutimes(path, seconds, seconds);
}

/** Whether this process may write into an existing directory. */
export async function isWritable(path: string): Promise<boolean> {
  return access(path, constants.W_OK).then(
    () => true,
    () => false,
  );
}

/** Bytes that this process may still write to the file system of `path`. */
export async function freeBytes(path: string): Promise<number> {
  const { bavail, bsize } = await statfs(path);
  return bavail * bsize;
}

/** A new empty directory under the system's temporary one; remove it with {@link removePath}. */
export async function temporaryDirectory(name: string): Promise<string> {
  return mkdtemp(join(tmpdir(), `${name}-`));
}

/** A path with all symbolic links resolved; `undefined` if there is nothing. */
export async function resolvedPath(path: string): Promise<string | undefined> {
  return realpath(path).catch(() => undefined);
}
