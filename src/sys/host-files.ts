/** Files and directory trees of the host as byte streams, for copying into and out of VMs. */
import { lstat, mkdir, open, rename, rm, stat, symlink, utimes } from "node:fs/promises";
import { MayflyError } from "../contract/errors.ts";
import { findTool, missingTool } from "./tool.ts";

/** What is at a path of the host. */
export interface HostEntry {
  type: "file" | "directory" | "symlink" | "other";
  /** Permission bits. */
  mode: number;
}

/** What is at a path, or `undefined` if nothing is. `follow`: at the end of symbolic links. */
export async function hostEntry(path: string, follow: boolean): Promise<HostEntry | undefined> {
  const found = await (follow ? stat(path) : lstat(path)).catch((error: unknown) => {
    if (error instanceof Error && "code" in error && (error.code === "ENOENT" || error.code === "ENOTDIR"))
      return undefined;
    throw error;
  });
  if (found === undefined) return undefined;
  const type = found.isFile()
    ? "file"
    : found.isDirectory()
      ? "directory"
      : found.isSymbolicLink()
        ? "symlink"
        : "other";
  return { type, mode: found.mode & 0o7777 };
}

/** A file's bytes. */
export function readHostFile(path: string): AsyncIterable<Uint8Array> {
  return Bun.file(path).stream();
}

/** Writes a file whole: it appears under its name, with its mode and time, when all bytes have come. */
export async function writeHostFile(
  path: string,
  content: AsyncIterable<Uint8Array>,
  attributes: { mode: number; mtime: Date },
): Promise<void> {
  const beside = `${path}.mayfly-${process.pid}`;
  const file = await open(beside, "wx", attributes.mode & 0o777);
  try {
    for await (const chunk of content) await file.writeFile(chunk);
    await file.chmod(attributes.mode & 0o777);
    await file.close();
    await utimes(beside, attributes.mtime, attributes.mtime);
    await rename(beside, path);
  } catch (error) {
    await file.close().catch(() => undefined);
    await rm(beside, { force: true });
    throw error;
  }
}

/** Makes a symbolic link in place of whatever file or link is there. */
export async function replaceLink(path: string, target: string): Promise<void> {
  await rm(path, { force: true });
  await symlink(target, path);
}

/** Makes a directory if there is none. */
export async function ensureDirectory(path: string): Promise<void> {
  await mkdir(path, { recursive: true });
}

/** A tar stream of what is in a directory. Owners are root's unless `keepOwners`. @throws MayflyError `tool_failed`, `tool_missing`. */
export async function* packDirectory(path: string, keepOwners: boolean): AsyncGenerator<Uint8Array> {
  const owners = keepOwners ? ["--numeric-owner"] : ["--owner=0", "--group=0", "--numeric-owner"];
  const child = Bun.spawn([tar(), "-C", path, ...owners, "-cf", "-", "."], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const messages = new Response(child.stderr).text();
  try {
    yield* child.stdout;
    await checkEnd(child.exited, messages, `pack ${path}`);
  } finally {
    child.kill();
  }
}

/** Unpacks a tar stream into a directory. Owners are the caller's unless `keepOwners`. @throws MayflyError `tool_failed`, `tool_missing`. */
export async function unpackInto(path: string, content: AsyncIterable<Uint8Array>, keepOwners: boolean): Promise<void> {
  const owners = keepOwners ? ["--same-owner", "--numeric-owner"] : ["--no-same-owner"];
  const child = Bun.spawn([tar(), "-C", path, ...owners, "-xpf", "-"], {
    stdin: "pipe",
    stdout: "ignore",
    stderr: "pipe",
  });
  const messages = new Response(child.stderr).text();
  try {
    for await (const chunk of content) {
      child.stdin.write(chunk);
      await child.stdin.flush();
    }
    await child.stdin.end();
  } catch (error) {
    child.kill();
    await checkEnd(child.exited, messages, `unpack into ${path}`);
    throw error;
  }
  await checkEnd(child.exited, messages, `unpack into ${path}`);
}

async function checkEnd(exited: Promise<number>, messages: Promise<string>, what: string): Promise<void> {
  const exitCode = await exited;
  const stderrTail = (await messages).trimEnd().slice(-2000);
  if (exitCode === 0) return;
  throw new MayflyError("tool_failed", `Cannot ${what}: tar ended with code ${exitCode}`, {
    details: { exitCode, stderrTail },
  });
}

function tar(): string {
  const found = findTool("tar");
  if (found === undefined) throw missingTool("tar");
  return found;
}
