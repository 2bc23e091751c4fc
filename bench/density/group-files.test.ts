import { expect, test } from "bun:test";
import { findHierarchies, ownBytes, parseCpuUs, parseMemory } from "./group-files.ts";
import { parseCounts } from "./merging.ts";

const HYBRID = `tmpfs /sys/fs/cgroup tmpfs rw 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,nosuid 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/pids cgroup rw,relatime,pids 0 0
`;
const none = () => "";

test("v2 is used where it has memory", () => {
  const mounts = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
  const root = "/sys/fs/cgroup";
  expect(findHierarchies(mounts, (asked) => (asked === root ? "cpuset cpu io memory pids\n" : ""))).toEqual({
    ...{ version: "v2", memory: root, cpuTime: root, used: [root], all: [root] },
  });
  expect(findHierarchies(mounts, () => "cpu memoryless\n")).toBeUndefined();
});

test("otherwise v1, with controllers that share a hierarchy named once", () => {
  const at = (name: string) => `/sys/fs/cgroup/${name}`;
  expect(findHierarchies(HYBRID, () => "hugetlb\n")).toEqual({
    ...{ version: "v1", memory: at("memory"), cpuTime: at("cpu,cpuacct") },
    used: ["memory", "cpu,cpuacct", "pids"].map(at),
    all: ["systemd", "memory", "cpu,cpuacct", "pids", "unified"].map(at),
  });
  expect(findHierarchies(HYBRID.replaceAll("cpuacct", "x"), none)).toBeUndefined();
  expect(findHierarchies("proc /proc proc rw 0 0\n", none)).toBeUndefined();
});

test("memory of a v1 group is that of all below it, and the kernel's is counted apart", () => {
  const stat = "cache 1\nrss 2\nshmem 3\ntotal_cache 5000\ntotal_rss 70000\ntotal_shmem 1000\ntotal_mapped_file 9\n";
  const memory = parseMemory("v1", stat, "600\n");
  expect(memory).toEqual({ anonymousBytes: 70_000, shmemBytes: 1000, kernelBytes: 600, pageCacheBytes: 4000 });
  expect(ownBytes(memory)).toBe(71_600);
});

test("memory of a v2 group, with or without the sum of the kernel's", () => {
  const stat = "anon 70000\nfile 5000\nkernel_stack 10\npagetables 20\npercpu 30\nsock 40\nshmem 1000\nslab 50\n";
  const rest = { anonymousBytes: 70_000, shmemBytes: 1000, pageCacheBytes: 4000 };
  expect(parseMemory("v2", stat)).toEqual({ ...rest, kernelBytes: 150 });
  expect(parseMemory("v2", `${stat}kernel 900\n`)).toEqual({ ...rest, kernelBytes: 900 });
});

test("CPU time in microseconds", () => {
  expect(parseCpuUs("v1", "1234567\n")).toBe(1234.567);
  expect(parseCpuUs("v2", "usage_usec 1234\nuser_usec 1000\nsystem_usec 234\n")).toBe(1234);
});

test("what merging saves and needs, by the kernel's own profit", () => {
  const files: Readonly<Record<string, string>> = {
    ...{
      full_scans: "8",
      pages_sharing: "1668",
      ksm_zero_pages: "2",
      pages_unshared: "14178",
      general_profit: "5794048",
    },
  };
  const counts = parseCounts((name) => files[name] ?? "");
  expect(counts).toMatchObject({
    fullScans: 8,
    savedPages: 1670,
    allPages: 15_848,
    bookkeepingBytes: 1670 * 4096 - 5_794_048,
  });
  expect(parseCounts(none)).toMatchObject({ fullScans: 0, savedPages: 0, bookkeepingBytes: 0 });
});
