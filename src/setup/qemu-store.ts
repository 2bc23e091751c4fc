/** The QEMUs of a state directory: Debian's (stock), and lean ones that were built here. */

import { MayflyError } from "../contract/errors.ts";
import { identityOf, namesIn, readOptional } from "../sys/paths.ts";
import { sha256File } from "../sys/publish.ts";
import { processesRunning } from "../sys/running-programs.ts";
import { runTool } from "../sys/tool.ts";
import { artifactsDirectory, type QemuArtifact, readArtifacts } from "./artifacts.ts";
import { BUILD_FILE, describeQemu } from "./qemu-binary.ts";
import { compareVersions, type Workspace } from "./workspace.ts";

/** What Debian's QEMU is called by `use`. */
export const STOCK = "stock";
/** What the newest lean one is called by `use`. */
export const LEAN = "lean";
/** Below the directory of a lean QEMU. */
export const PROGRAM_PATH = "bin/qemu-system-x86_64";
const MAGIC = "mayfly-qemu";

/** What a build has left beside its program, as `build.json`. */
export interface QemuBuild {
  magic: typeof MAGIC;
  version: 1;
  /** Debian's version of the sources. */
  sourceVersion: string;
  /** Hash of all that decides about the program's bytes; its begin is part of the name. */
  recipe: string;
  /** Of the program, lower-case hexadecimal. */
  sha256: string;
}

/** A QEMU that is there. */
export interface QemuEntry {
  /** What `use` and `rm` take. */
  name: string;
  kind: QemuArtifact["kind"];
  /** As `--version` says. */
  version: string;
  /** Absolute path of the program. */
  path: string;
  /** Of the program, lower-case hexadecimal. */
  sha256: string;
  /** Bytes of the program. */
  sizeBytes: number;
  /** Names of the shared libraries that it loads; with stand-ins, many of them are one small file. */
  libraries: string[];
  /** Whether libraries that no VM reaches are stood in for (docs/adr/0020). */
  standIns: boolean;
  /** Whether VMs are started with it from now on. */
  inUse: boolean;
  /** Processes that run it now, as far as the caller may see them. */
  processes: number;
}

/** All QEMUs of a state directory, Debian's first, newer lean ones behind older ones. */
export async function qemusOf(stateDir: string): Promise<QemuEntry[]> {
  const inForce = await readArtifacts(stateDir).then(
    ({ qemu }): readonly QemuArtifact[] => qemu,
    () => [],
  );
  const chosen = inForce[0]?.path;
  const stock = inForce.filter(({ kind }) => kind !== "lean");
  const entries: QemuEntry[] = [];
  for (const qemu of stock) {
    const name = qemu.kind === "microvm" ? `${STOCK}-microvm` : STOCK;
    if (!entries.some((entry) => entry.name === name)) entries.push(await entryOf(name, qemu, chosen));
  }
  for (const { name, path } of await leanPaths(stateDir)) {
    entries.push(await entryOf(name, await describeQemu(path, "built"), chosen));
  }
  return entries;
}

async function entryOf(name: string, qemu: QemuArtifact, chosen: string | undefined): Promise<QemuEntry> {
  const { kind, version, path, sizeBytes, libraryPath } = qemu;
  const [sha256, libraries] = await Promise.all([sha256File(path), librariesOf(path)]);
  return {
    ...{ name, kind, version, path, sha256, sizeBytes, libraries },
    standIns: libraryPath !== undefined && libraryPath !== "",
    inUse: path === chosen,
    processes: processesRunning(path).length,
  };
}

/** Names of the shared libraries that a program loads; none for a static one, which ldd(1) does not take for a program at all. */
export async function librariesOf(path: string): Promise<string[]> {
  const { stdout } = await runTool(["ldd", path]).catch((error: unknown) => {
    if (error instanceof MayflyError && error.code === "tool_failed") return { stdout: "" };
    throw error;
  });
  return [...stdout.matchAll(/^\s*(\S+) => \//gm)].flatMap((match) => match[1] ?? []).toSorted();
}

/**
 * The lean QEMU of a name, or the newest for `lean`.
 * @returns its name and the absolute path of its program.
 * @throws MayflyError `qemu_not_found` with the names that there are.
 */
export async function findLean(stateDir: string, name: string): Promise<{ name: string; path: string }> {
  const all = await leanPaths(stateDir);
  const found = name === LEAN ? all.at(-1) : all.find((entry) => entry.name === name);
  if (found !== undefined) return found;
  const names = [STOCK, ...all.map((entry) => entry.name)].join(", ");
  const remedy = name === LEAN ? "mayfly qemu build" : "mayfly qemu ls";
  throw new MayflyError("qemu_not_found", `Cannot find the QEMU ${name}: there is ${names}`, { details: { remedy } });
}

/**
 * The lean QEMU that a set-up is to put first: the one in force as long as it is there, or the newest where nothing has been chosen yet.
 */
export async function leanInForce({ stateDir, made }: Workspace): Promise<QemuArtifact | undefined> {
  const current = made.qemu?.[0];
  const isChosen = current === undefined || current.origin === "environment" || current.kind === "lean";
  if (!isChosen) return undefined;
  const kept = current?.kind === "lean" ? await describeQemu(current.path, "built").catch(() => undefined) : undefined;
  if (kept !== undefined) return kept;
  const newest = (await leanPaths(stateDir)).at(-1)?.path;
  return newest === undefined ? undefined : describeQemu(newest, "built");
}

/**
 * Where a QEMU lies, to use it without putting it in force: as `MAYFLY_QEMU`.
 *
 * @param name of a lean one, `lean` for the newest, or `stock`.
 * @throws MayflyError `qemu_not_found`; `setup_required` where nothing is set up.
 */
export async function qemuAside(stateDir: string, name: string): Promise<string> {
  if (name !== STOCK) return (await findLean(stateDir, name)).path;
  const stock = (await readArtifacts(stateDir)).qemu.find(({ kind }) => kind !== "lean");
  if (stock !== undefined) return stock.path;
  throw new MayflyError("qemu_not_found", "Cannot find Debian's QEMU: it is not set up", {
    details: { remedy: "mayfly setup" },
  });
}

/** Where lean QEMUs lie, a directory each. */
export function leanDirectory(stateDir: string): string {
  return `${artifactsDirectory(stateDir)}/qemu-lean`;
}

/** The text of a `build.json`. */
export function formatBuild(build: Omit<QemuBuild, "magic" | "version">): string {
  return `${JSON.stringify({ magic: MAGIC, version: 1, ...build } satisfies QemuBuild, null, 2)}\n`;
}

/** Whether the program of a lean QEMU still has the bytes that were built; undefined if nothing says which these are. */
export async function isAsBuilt(directory: string): Promise<boolean | undefined> {
  const text = await readOptional(`${directory}/${BUILD_FILE}`);
  const wanted = text === undefined ? undefined : /"sha256": "([0-9a-f]{64})"/.exec(text)?.[1];
  return wanted === undefined ? undefined : wanted === (await sha256File(`${directory}/${PROGRAM_PATH}`));
}

/** Those that are complete by version, those of one version by age. */
async function leanPaths(stateDir: string): Promise<{ name: string; path: string }[]> {
  const parent = leanDirectory(stateDir);
  const found: { name: string; path: string; version: string; madeMs: number }[] = [];
  // Names of what is not complete begin with a dot.
  for (const name of (await namesIn(parent)).filter((entry) => !entry.startsWith("."))) {
    const path = `${parent}/${name}/${PROGRAM_PATH}`;
    const made = await identityOf(path);
    if (made !== undefined)
      found.push({ name, path, version: name.slice(0, name.lastIndexOf("-")), madeMs: made.mtimeMs });
  }
  const byAge = found.toSorted((a, b) => a.madeMs - b.madeMs);
  return byAge.toSorted((a, b) => compareVersions(a.version, b.version)).map(({ name, path }) => ({ name, path }));
}
