/** What control groups say of their memory and CPU time, and where they lie: cgroups v1 and v2. Only text, nothing is opened. */

/** Memory of a group with everything below it, in bytes. */
export interface GroupMemory {
  /** Anonymous pages. */
  anonymousBytes: number;
  /** Pages of tmpfs and shared memory. */
  shmemBytes: number;
  /** Of the kernel: page tables, stacks, and objects such as sockets, inodes and descriptors. */
  kernelBytes: number;
  /** Page cache of files on disks: shared with everything that uses the same files, and charged to whoever read them first. */
  pageCacheBytes: number;
}

/** Where groups of a version are made. */
export interface Hierarchies {
  version: "v1" | "v2";
  /** Directory with `memory.stat`. */
  memory: string;
  /** Directory with the CPU time. */
  cpuTime: string;
  /** All in which a group of VMs or containers is made and measured, each once. */
  used: readonly string[];
  /** All that there are, in which others may make groups of the same name. */
  all: readonly string[];
}

/** Controllers that Mayfly's VMs have groups of, and the one that counts CPU time. */
const WANTED = ["memory", "cpu", "pids", "cpuacct"] as const;

/**
 * Finds the hierarchies: v2 where it has the memory controller, else v1.
 * @param mounts as /proc/self/mounts has them.
 * @param controllersOf the text of a v2 hierarchy's `cgroup.controllers`.
 * @returns undefined where there is neither.
 */
export function findHierarchies(mounts: string, controllersOf: (root: string) => string): Hierarchies | undefined {
  const fields = mounts.split("\n").map((line) => line.split(" "));
  const roots = (type: string) => fields.filter((mount) => mount[2] === type);
  const unified = roots("cgroup2")[0]?.[1];
  if (unified !== undefined && controllersOf(unified).trim().split(/\s+/).includes("memory")) {
    return { version: "v2", memory: unified, cpuTime: unified, used: [unified], all: [unified] };
  }
  const v1 = roots("cgroup");
  const rootOf = (controller: string) => v1.find((mount) => mount[3]?.split(",").includes(controller))?.[1];
  const [memory, cpuTime] = [rootOf("memory"), rootOf("cpuacct")];
  if (memory === undefined || cpuTime === undefined) return undefined;
  const used = new Set(WANTED.flatMap((controller) => rootOf(controller) ?? []));
  const all = new Set([...v1, ...roots("cgroup2")].flatMap((mount) => mount[1] ?? []));
  return { version: "v1", memory, cpuTime, used: [...used], all: [...all] };
}

/**
 * Memory by `memory.stat` (Linux' admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst).
 * @param kernelUsage of v1: the text of `memory.kmem.usage_in_bytes`, which its `memory.stat` does not have.
 */
export function parseMemory(version: "v1" | "v2", stat: string, kernelUsage = "0"): GroupMemory {
  const values = new Map(stat.split("\n").map((line) => [line.split(" ")[0], Number(line.split(" ")[1] ?? 0)]));
  const value = (name: string) => values.get(name) ?? 0;
  if (version === "v1") {
    return {
      anonymousBytes: value("total_rss"),
      shmemBytes: value("total_shmem"),
      kernelBytes: Number(kernelUsage),
      pageCacheBytes: value("total_cache") - value("total_shmem"),
    };
  }
  // `kernel` is there from Linux 5.18 on; before, these are its parts.
  const parts = ["kernel_stack", "pagetables", "percpu", "sock", "slab"].map(value).reduce((a, b) => a + b, 0);
  return {
    anonymousBytes: value("anon"),
    shmemBytes: value("shmem"),
    kernelBytes: values.has("kernel") ? value("kernel") : parts,
    pageCacheBytes: value("file") - value("shmem"),
  };
}

/** CPU time in microseconds by the text of `cpuacct.usage` (v1) or `cpu.stat` (v2). */
export function parseCpuUs(version: "v1" | "v2", text: string): number {
  return version === "v1" ? Number(text) / 1000 : Number(/^usage_usec (\d+)$/m.exec(text)?.[1] ?? 0);
}

/** What an instance has for itself: all but the page cache. */
export function ownBytes({ anonymousBytes, shmemBytes, kernelBytes }: GroupMemory): number {
  return anonymousBytes + shmemBytes + kernelBytes;
}
