import { expect, test } from "bun:test";
import type { QemuBinary } from "../contract/machine.ts";
import { chooseQemu, cloneMemoryMode, cpuModelFor } from "./host.ts";
import { type PlanInput, planQemu } from "./plan.ts";

const qemu: QemuBinary = { path: "/q", version: "10.0.2", firmwarePaths: [], kind: "full", sizeBytes: 1, mtimeMs: 1 };
const input: PlanInput = {
  artifacts: { launcher: { path: "/launcher" } },
  qemu,
  accelerator: "tcg",
  cpuModel: "max",
  shape: { memoryMiB: 128, vcpus: 1 },
  memoryPath: "/memory",
  memoryMode: "private-read-only",
  uid: 900_007,
  gid: 900_000,
  procsFiles: ["/cg/memory/q6/cgroup.procs", "/cg/cpu/q6/cgroup.procs"],
  disks: {},
};

test("a plan is the launcher with its limits, then QEMU with its arguments", () => {
  const { command, env, opensKvm } = planQemu(input);
  const split = command.indexOf("--");
  expect(command.slice(0, split)).toEqual([
    "/launcher",
    ...["--cgroup-procs", "/cg/memory/q6/cgroup.procs", "--cgroup-procs", "/cg/cpu/q6/cgroup.procs"],
    ...["--uid", "900007", "--gid", "900000"],
    ...["--rlimit", "CORE=0", "--rlimit", "NOFILE=1024", "--no-huge-pages"],
  ]);
  expect(command[split + 1]).toBe("/q");
  expect(command.slice(-2)).toEqual(["-incoming", "fd:5"]);
  expect(env).toEqual({
    ...{ PATH: "/usr/bin:/bin", LC_ALL: "C", MALLOC_ARENA_MAX: "1" },
    GLIBC_TUNABLES:
      "glibc.malloc.tcache_count=0:glibc.malloc.mmap_threshold=32768:glibc.malloc.trim_threshold=65536:glibc.malloc.top_pad=4096",
  });
  expect(opensKvm).toBe(false);
});

test("a plan for KVM opens /dev/kvm for QEMU", () => {
  const { command, opensKvm } = planQemu({ ...input, accelerator: "kvm", cpuModel: "host" });
  expect(opensKvm).toBe(true);
  expect(command.join(" ")).toContain("-add-fd fd=6,set=1 -accel kvm,device=/dev/fdset/1 -cpu host");
});

test("a plan that boots reads no state, and libraries of QEMU's own are found", () => {
  const boot = { kernelPath: "/k", initramfsPath: "/i", commandLine: "c" };
  const { command, env } = planQemu({
    ...input,
    qemu: { ...qemu, libraryPath: "/lib of/q" },
    boot,
    memoryMode: "shared",
  });
  expect(command).not.toContain("-incoming");
  expect(command.slice(-6)).toEqual(["-kernel", "/k", "-initrd", "/i", "-append", "c"]);
  expect(env["LD_LIBRARY_PATH"]).toBe("/lib of/q");
});

test("the same input gives the same plan", () => {
  expect(planQemu(input)).toEqual(planQemu(structuredClone(input)));
});

test("a QEMU is chosen for its accelerator, and memory is read-only where QEMU knows how", () => {
  const microvm: QemuBinary = { ...qemu, path: "/m", kind: "microvm" };
  expect(chooseQemu([qemu, microvm], "kvm")).toBe(microvm);
  expect(chooseQemu([qemu, microvm], "tcg")).toBe(qemu);
  expect(chooseQemu([microvm], "tcg")).toBeUndefined();
  expect(chooseQemu([qemu], "kvm")).toBe(qemu);
  const lean: QemuBinary = { ...qemu, path: "/l", kind: "lean" };
  expect(chooseQemu([lean, qemu, microvm], "kvm")).toBe(lean);
  expect(chooseQemu([lean, qemu, microvm], "tcg")).toBe(lean);
  const mode = (version: string) => cloneMemoryMode({ ...qemu, version });
  expect(["7.2.15", "8.1.9", "8.2.0", "9.0", "10.0.2"].map(mode)).toEqual([
    "private",
    "private",
    "private-read-only",
    "private-read-only",
    "private-read-only",
  ]);
  expect([cpuModelFor("kvm"), typeof cpuModelFor("tcg")]).toEqual(["host", "string"]);
});
