/** The guest kernels of a state directory: Debian's cloud kernel, and minimal ones that were built here. */

import { dirname } from "node:path";
import { MayflyError } from "../contract/errors.ts";
import { allocatedBytesBelow } from "../sys/allocated.ts";
import { identityOf, namesIn } from "../sys/paths.ts";
import { artifactsDirectory, describeKernel, readArtifacts } from "./artifacts.ts";
import { compareVersions } from "./workspace.ts";

/** `cloud`: Debian's package; `minimal`: built here from Debian's sources with `guest/kernel/kernel.config`. */
export type KernelKind = "cloud" | "minimal";

/** Kinds, and below which name of the artifacts each lies. */
export const KERNEL_DIRECTORIES = { cloud: "kernel", minimal: "kernel-minimal" } as const;
export const KERNEL_KINDS = ["cloud", "minimal"] as const satisfies readonly KernelKind[];

/** A guest kernel that is there. */
export interface KernelEntry {
  /** What `use` and `rm` take. */
  name: string;
  kind: KernelKind;
  /** As `uname -r` says in a guest. */
  version: string;
  /** Absolute path of the bzImage; its modules lie in `modules` beside it. */
  path: string;
  /** Of the bzImage, lower-case hexadecimal. */
  sha256: string;
  /** Bytes of the bzImage. */
  imageBytes: number;
  /** Disk space of all of it. */
  sizeBytes: number;
  /** Whether VMs are started with it from now on. */
  inUse: boolean;
}

/** All kernels of a state directory, the cloud ones first, newer ones behind older ones. */
export async function kernelsOf(stateDir: string): Promise<KernelEntry[]> {
  const inForce = await readArtifacts(stateDir).then(
    ({ kernel }) => kernel.path,
    () => undefined,
  );
  const entries: KernelEntry[] = [];
  for (const kind of KERNEL_KINDS) {
    for (const path of await kernelPaths(stateDir, kind)) {
      const [{ version, sha256 }, identity] = await Promise.all([describeKernel(path), identityOf(path)]);
      const directory = dirname(path);
      entries.push({
        name: directory.slice(directory.lastIndexOf("/") + 1),
        ...{ kind, version, path, sha256 },
        imageBytes: identity?.sizeBytes ?? 0,
        sizeBytes: await allocatedBytesBelow(directory),
        inUse: path === inForce,
      });
    }
  }
  return entries;
}

/** The newest kernel of a kind that is there: absolute path of its bzImage. */
export async function newestKernel(stateDir: string, kind: KernelKind): Promise<string | undefined> {
  return (await kernelPaths(stateDir, kind)).at(-1);
}

/**
 * The kernel of a name, which may be a kind for the newest of it.
 * @throws MayflyError `kernel_not_found` with the names that there are.
 */
export async function findKernel(stateDir: string, name: string): Promise<{ kind: KernelKind; path: string }> {
  const names: string[] = [];
  for (const kind of KERNEL_KINDS) {
    const paths = await kernelPaths(stateDir, kind);
    const path = name === kind ? paths.at(-1) : paths.find((entry) => dirname(entry).endsWith(`/${name}`));
    if (path !== undefined) return { kind, path };
    names.push(...paths.map((entry) => dirname(entry).slice(dirname(entry).lastIndexOf("/") + 1)));
  }
  const there = names.length === 0 ? "there is none" : `there are ${names.join(", ")}`;
  const remedy = name === "minimal" ? "mayfly kernel build" : "mayfly kernel ls";
  throw new MayflyError("kernel_not_found", `Cannot find the guest kernel ${name}: ${there}`, { details: { remedy } });
}

/** Where the kernels of a kind lie. */
export function kernelsDirectory(stateDir: string, kind: KernelKind): string {
  return `${artifactsDirectory(stateDir)}/${KERNEL_DIRECTORIES[kind]}`;
}

/** Paths of the complete ones by version, those of one version by age. */
async function kernelPaths(stateDir: string, kind: KernelKind): Promise<string[]> {
  const parent = kernelsDirectory(stateDir, kind);
  const found: { path: string; version: string; madeMs: number }[] = [];
  // Names of what is not complete begin with a dot.
  for (const name of (await namesIn(parent)).filter((entry) => !entry.startsWith("."))) {
    const path = `${parent}/${name}/vmlinuz`;
    const made = await identityOf(path);
    const version = kind === "minimal" ? name.slice(0, name.lastIndexOf("-")) : name;
    if (made !== undefined) found.push({ path, version, madeMs: made.mtimeMs });
  }
  const byAge = found.toSorted((a, b) => a.madeMs - b.madeMs);
  return byAge.toSorted((a, b) => compareVersions(a.version, b.version)).map(({ path }) => path);
}
