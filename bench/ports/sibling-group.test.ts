import { expect, test } from "bun:test";
import { cpuGroupOf } from "./sibling-group.ts";

const V1 =
  "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\ncgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n";
const V2 = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";

test("a process' group of CPU time, in both versions", () => {
  expect(cpuGroupOf("4:memory:/a\n1:cpu,cpuacct:/mayfly-1/q0\n0::/\n", V1)).toBe(
    "/sys/fs/cgroup/cpu,cpuacct/mayfly-1/q0",
  );
  expect(cpuGroupOf("0::/mayfly-1/q0\n", V2)).toBe("/sys/fs/cgroup/mayfly-1/q0");
  expect(cpuGroupOf("0::/\n", V2)).toBeUndefined();
  expect(cpuGroupOf("1:cpu:/a\n", V2)).toBeUndefined();
});
