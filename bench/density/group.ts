/** The control group that holds all of a subject: daemon or engine, shims, VMs or containers. What is charged to it is what the subject costs. */
import { mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { MayflyError } from "../../src/contract/errors.ts";
import { Deadline, pause } from "../../src/sys/deadline.ts";
import { openNamespace } from "../namespace.ts";
import { findHierarchies, type GroupMemory, type Hierarchies, parseCpuUs, parseMemory } from "./group-files.ts";

/** Processes of the engine itself: with v2 a group that has groups below it has no processes of its own. */
const ENGINE = "engine";
const END_LIMIT_MS = 60_000;
/** Nothing tells when a group's last process is gone. */
const LOOK_AGAIN_MS = 20;
const CONTROLLERS = "+memory +cpu +pids";

/** The group; disposing it kills what is left in it and removes it. */
export interface CrowdGroup extends AsyncDisposable {
  /** Its path below the root of each hierarchy, e.g. `/mayfly-density-1`. */
  readonly path: string;
  /** Words before a command, which is then in the group from its first instruction. */
  readonly enter: readonly string[];
  memory(): GroupMemory;
  /** Microseconds that everything in it has used so far, what has ended as well. */
  cpuUs(): number;
  /** Processes in it and below it. */
  pids(): number[];
}

let groups = 0;

/** Makes one. @throws MayflyError `internal` where there are no control groups; the system's error where they cannot be written. */
export function openGroup(): CrowdGroup {
  const mounts = readFileSync("/proc/self/mounts", "utf8");
  const places = findHierarchies(mounts, (root) => textOf(`${root}/cgroup.controllers`));
  if (places === undefined) {
    throw new MayflyError(
      "internal",
      "Cannot measure memory: this host has no control groups with memory and CPU time",
    );
  }
  groups += 1;
  const path = `/mayfly-density-${process.pid}-${groups}`;
  const { version, used, memory, cpuTime } = places;
  if (version === "v2") writeFileSync(`${memory}/cgroup.subtree_control`, CONTROLLERS);
  for (const root of used) mkdirSync(`${root}${path}/${ENGINE}`, { recursive: true });
  const joins = used.map((root) => `echo 0 > ${root}${path}/${ENGINE}/cgroup.procs`);
  const pids = () => pidsBelow(`${memory}${path}`);
  return {
    ...{ path, pids, enter: ["/bin/sh", "-c", `${joins.join(" && ")} && exec "$@"`, "sh"] },
    memory() {
      const kernel = version === "v1" ? textOf(`${memory}${path}/memory.kmem.usage_in_bytes`) : undefined;
      return parseMemory(version, readFileSync(`${memory}${path}/memory.stat`, "utf8"), kernel);
    },
    cpuUs: () =>
      parseCpuUs(version, readFileSync(`${cpuTime}${path}/${version === "v1" ? "cpuacct.usage" : "cpu.stat"}`, "utf8")),
    async [Symbol.asyncDispose]() {
      await endAll(pids);
      await removeGroups(places, path);
    },
  };
}

/**
 * A mount namespace in which the group is the root of the hierarchies, for an engine that makes its groups there.
 * @returns the words that enter it, for behind {@link CrowdGroup.enter}.
 * @throws MayflyError `internal` where it cannot be made.
 */
export async function asRoot(group: CrowdGroup, resources: AsyncDisposableStack): Promise<string[]> {
  const mounts = readFileSync("/proc/self/mounts", "utf8");
  const used = findHierarchies(mounts, (root) => textOf(`${root}/cgroup.controllers`))?.used ?? [];
  const binds = used.map((root) => `mount --bind ${root}${group.path} ${root}`);
  const words = await openNamespace(binds.join(" && "), resources);
  if (words === undefined) throw new MayflyError("internal", "Cannot put a daemon and its VMs into one control group");
  return words;
}

async function endAll(pids: () => number[]): Promise<void> {
  const deadline = Deadline.after(END_LIMIT_MS);
  for (let left = pids(); left.length > 0 && deadline.remainingMs > 0; left = pids()) {
    for (const pid of left) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // It has ended already.
      }
    }
    await pause(LOOK_AGAIN_MS);
  }
}

/** Removes the groups of this name everywhere: container engines make them in all hierarchies. */
async function removeGroups({ all }: Hierarchies, path: string): Promise<void> {
  const deadline = Deadline.after(END_LIMIT_MS);
  for (const root of all) {
    while (!removeTree(`${root}${path}`) && deadline.remainingMs > 0) await pause(LOOK_AGAIN_MS);
  }
}

/** @returns whether it is gone. */
function removeTree(directory: string): boolean {
  for (const name of groupsBelow(directory)) removeTree(`${directory}/${name}`);
  try {
    rmdirSync(directory);
    return true;
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "ENOENT";
  }
}

function pidsBelow(directory: string): number[] {
  const own = textOf(`${directory}/cgroup.procs`)
    .split("\n")
    .filter((line) => line !== "")
    .map(Number);
  return [...own, ...groupsBelow(directory).flatMap((name) => pidsBelow(`${directory}/${name}`))];
}

function groupsBelow(directory: string): string[] {
  try {
    return readdirSync(directory, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map(({ name }) => name);
  } catch {
    return [];
  }
}

/** Empty if it is gone meanwhile. */
function textOf(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
