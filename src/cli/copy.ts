/** Copying between host and guest. Single files go as files; trees and streams as tar, which the guest has to have. */
import type { Client } from "../client/client.ts";
import type { Process } from "../client/process.ts";
import type { FileStat } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import {
  ensureDirectory,
  hostEntry,
  packDirectory,
  readHostFile,
  replaceLink,
  unpackInto,
  writeHostFile,
} from "../sys/host-files.ts";
import { standardInput, standardOutput } from "../sys/standard-io.ts";
import { baseName, type CopySide, directoryTarget, fileTarget, type TargetType } from "./copy-paths.ts";

type GuestSide = Extract<CopySide, { kind: "guest" }>;

/** How things are copied. */
export interface CopyOptions {
  /** Keep owners; otherwise they are root's in the guest and the caller's on the host. */
  archive: boolean;
  /** Copy what a symbolic link points to. */
  followLink: boolean;
}

/** Copies a file, a tree, or a tar stream into a guest. */
export async function copyIn(
  client: Client,
  source: Exclude<CopySide, GuestSide>,
  target: GuestSide,
  options: CopyOptions,
): Promise<void> {
  const type = await guestType(client, target);
  if (source.kind === "stream") {
    if (type !== "directory") throw notDirectory(target.path);
    return unpackInGuest(client, target.vm, target.path, standardInput(), true);
  }
  const entry = await hostEntry(source.path, options.followLink || source.path.endsWith("/"));
  if (entry === undefined)
    throw new MayflyError("invalid_argument", `Cannot copy ${source.path}: there is no such file on the host`);
  if (entry.type === "directory") {
    const path = directoryTarget(source.path, target.path, type);
    const isNew = (path === target.path ? type : await guestType(client, { ...target, path })) === undefined;
    await client.files.mkdir(target.vm, path, { parents: type !== undefined, mode: entry.mode });
    const content = packDirectory(source.path, options.archive);
    return unpackInGuest(client, target.vm, path, content, options.archive).catch(async (error: unknown) => {
      const hasNoTar = error instanceof MayflyError && error.code === "command_not_found";
      if (isNew && hasNoTar) await client.files.remove(target.vm, path).catch(() => undefined);
      throw error;
    });
  }
  if (entry.type !== "file") {
    throw new MayflyError("invalid_argument", `Cannot copy ${source.path}: it is neither a file nor a directory`, {
      details: { remedy: "mayfly cp -L copies what a symbolic link points to" },
    });
  }
  await client.files.write(target.vm, fileTarget(source.path, target.path, type), readHostFile(source.path), {
    mode: entry.mode,
  });
}

/** Copies a file or a tree of a guest to the host, or as a tar stream to standard output. */
export async function copyOut(
  client: Client,
  source: GuestSide,
  target: Exclude<CopySide, GuestSide>,
  options: CopyOptions,
): Promise<void> {
  const stat = await sourceStat(client, source, options.followLink);
  if (target.kind === "stream") return tarToOutput(client, source);
  const type = typeOf((await hostEntry(target.path, true))?.type);
  if (stat.type === "directory") {
    const path = directoryTarget(source.path, target.path, type);
    if (type === undefined) await checkParent(path);
    await withGuestTar(client, source.vm, ["-C", source.path, "-cf", "-", "."], false, async (tar) => {
      await ensureDirectory(path);
      await unpackInto(path, standardOutputOf(tar), options.archive);
    });
    return;
  }
  const path = fileTarget(source.path, target.path, type);
  if (type === undefined) await checkParent(path);
  if (stat.type === "symlink") return replaceLink(path, stat.target ?? "");
  const content = await client.files.read(source.vm, source.path);
  await writeHostFile(path, content, { mode: content.stat.mode, mtime: new Date(content.stat.mtime) });
}

async function sourceStat(client: Client, { vm, path }: GuestSide, followLink: boolean): Promise<FileStat> {
  const stat = await client.files.stat(vm, path);
  if (stat.type !== "symlink" || !followLink) return stat;
  // A directory's own entry is at the end of the link; a file has none, and is read through the link.
  return client.files.stat(vm, `${path}/.`).catch((): FileStat => ({ ...stat, type: "file" }));
}

async function guestType(client: Client, { vm, path }: GuestSide): Promise<TargetType> {
  try {
    const stat = await client.files.stat(vm, path);
    if (stat.type !== "symlink") return typeOf(stat.type);
    return await client.files.stat(vm, `${path}/.`).then(
      () => "directory",
      () => "file",
    );
  } catch (error) {
    if (error instanceof MayflyError && error.code === "file_not_found") return undefined;
    throw error;
  }
}

function typeOf(type: string | undefined): TargetType {
  return type === "file" || type === "directory" || type === undefined ? type : "other";
}

async function checkParent(path: string): Promise<void> {
  const parent = path.replace(/\/+$/, "").replace(/[^/]*$/, "") || ".";
  if ((await hostEntry(parent, true))?.type !== "directory") throw notDirectory(parent);
}

async function tarToOutput(client: Client, { vm, path }: GuestSide): Promise<void> {
  const name = baseName(path);
  const parent = path.replace(/\/+$/, "").slice(0, -name.length || undefined) || "/";
  await withGuestTar(
    client,
    vm,
    ["-C", name === "" ? path : parent, "-cf", "-", name === "" ? "." : name],
    false,
    async (tar) => {
      for await (const bytes of standardOutputOf(tar)) await standardOutput(1).write(bytes);
    },
  );
}

async function unpackInGuest(
  client: Client,
  vm: string,
  path: string,
  content: AsyncIterable<Uint8Array>,
  keepOwners: boolean,
): Promise<void> {
  await withGuestTar(client, vm, ["-C", path, ...(keepOwners ? [] : ["-o"]), "-xpf", "-"], true, async (tar) => {
    const ended = tar.exited.then(
      () => true,
      () => true,
    );
    for await (const chunk of content) {
      // A tar that has ended takes no more, and says why when it is asked for its exit.
      if (await Promise.race([tar.stdin.write(chunk).then(() => false), ended])) return;
    }
    tar.stdin.end();
  });
}

const messages = new WeakMap<Process, string[]>();

/** Runs tar in the guest. @throws MayflyError `tool_failed` with what it said. */
async function withGuestTar(
  client: Client,
  vm: string,
  args: readonly string[],
  stdin: boolean,
  use: (tar: Process) => Promise<void>,
): Promise<void> {
  const tar = await client.vms.exec(vm, { command: ["tar", ...args], stdin }).catch((error: unknown) => {
    if (!(error instanceof MayflyError) || error.code !== "command_not_found") throw error;
    throw new MayflyError("command_not_found", `Cannot copy directories and streams: VM ${vm} has no tar`, {
      details: { remedy: "single files can be copied without it" },
      cause: error,
    });
  });
  const said: string[] = [];
  messages.set(tar, said);
  try {
    // Whoever does not read standard output still has standard error collected.
    const reading = stdin ? discard(standardOutputOf(tar)) : Promise.resolve();
    await use(tar);
    await reading;
    const { exitCode } = await tar.exited;
    if (exitCode !== 0) {
      throw new MayflyError("tool_failed", `Cannot copy: tar in VM ${vm} ended with code ${exitCode}`, {
        details: { exitCode, stderrTail: said.join("").slice(-2000) },
      });
    }
  } finally {
    tar.detach();
  }
}

async function discard(chunks: AsyncIterable<Uint8Array>): Promise<void> {
  for await (const _ of chunks);
}

async function* standardOutputOf(tar: Process): AsyncGenerator<Uint8Array> {
  for await (const { name, bytes } of tar.output) {
    if (name === "stdout") yield bytes;
    else messages.get(tar)?.push(new TextDecoder().decode(bytes));
  }
}

function notDirectory(path: string): MayflyError {
  return new MayflyError("invalid_argument", `Cannot copy to ${path}: it is no directory`);
}
