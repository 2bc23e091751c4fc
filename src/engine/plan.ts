/** What a QEMU process will be, as data: command, environment, descriptors. Pure; a test prints it. */
import type { Accelerator, HostArtifacts, QemuBinary, Shape } from "../contract/machine.ts";
import { type BootFiles, type MemoryMode, qemuArguments } from "../machine/arguments.ts";
import type { DiskFiles } from "../machine/devices/disk.ts";

/** What a plan is made from. */
export interface PlanInput {
  artifacts: Pick<HostArtifacts, "launcher">;
  qemu: QemuBinary;
  accelerator: Accelerator;
  cpuModel: string;
  shape: Shape;
  memoryPath: string;
  memoryMode: MemoryMode;
  uid: number;
  gid: number;
  procsFiles: readonly string[];
  disks: DiskFiles;
  boot?: BootFiles;
  consolePath?: string;
  /** Whether the kernel may merge its memory with equal memory of others. */
  merge?: boolean;
}

/** Descriptor numbers in the child, in the order in which the plan's descriptors are given. */
export const CHILD_FDS = { qmp: 3, agent: 4, state: 5, kvm: 6, imageBase: 6 } as const;

/** What who goes on from a process image has open already. */
export const GIVEN_FDS = [1, 2, CHILD_FDS.qmp, CHILD_FDS.agent] as const;

/** A process to spawn. */
export interface QemuPlan {
  command: string[];
  env: Record<string, string>;
  /** Whether the child gets an open /dev/kvm as its descriptor 6. */
  opensKvm: boolean;
  /** What it goes on from: has it as its descriptor 5, instead of a socket for its state. */
  imagePath?: string;
  /** A file that the image's process has mapped and may not open itself: has it as its descriptor 6. */
  imageBasePath?: string;
}

/** The command of one QEMU process behind the launcher. A plan without `boot` takes its state from its state socket. */
export function planQemu(input: PlanInput): QemuPlan {
  const { boot, consolePath } = input;
  const qemu = qemuArguments({
    qemu: input.qemu,
    accelerator: input.accelerator,
    cpuModel: input.cpuModel,
    shape: input.shape,
    memoryPath: input.memoryPath,
    memoryMode: input.memoryMode,
    qmpFd: CHILD_FDS.qmp,
    agentFd: CHILD_FDS.agent,
    disks: input.disks,
    ...(input.accelerator === "kvm" ? { kvmFd: CHILD_FDS.kvm } : {}),
    ...(boot === undefined ? { incomingFd: CHILD_FDS.state } : { boot }),
    ...(consolePath === undefined ? {} : { consolePath }),
  });
  return {
    command: [...planLauncher(input), "--", input.qemu.path, ...qemu],
    env: qemuEnvironment(input.qemu),
    opensKvm: input.accelerator === "kvm",
  };
}

/** The command of one that goes on from a process image. @param basePath the image that this one's process has gone on from itself. */
export function planFromImage(
  input: Parameters<typeof planLauncher>[0],
  imagePath: string,
  basePath?: string,
): QemuPlan {
  const base = basePath === undefined ? [] : ["--image-base", String(CHILD_FDS.imageBase)];
  return {
    command: [...planLauncher(input), "--image", String(CHILD_FDS.state), ...base],
    env: {},
    opensKvm: false,
    imagePath,
    ...(basePath === undefined ? {} : { imageBasePath: basePath }),
  };
}

function planLauncher({
  artifacts,
  procsFiles,
  uid,
  gid,
  merge = false,
}: Pick<PlanInput, "artifacts" | "procsFiles" | "uid" | "gid" | "merge">): string[] {
  return [
    artifacts.launcher.path,
    ...procsFiles.flatMap((file) => ["--cgroup-procs", file]),
    ...["--uid", String(uid), "--gid", String(gid)],
    ...["--rlimit", "CORE=0", "--rlimit", "NOFILE=1024", "--no-huge-pages"],
    ...(merge ? ["--merge-memory"] : []),
  ];
}

/**
 * What QEMU's C library is told (mallopt(3), the GNU C library's manual on tunables): one arena, since each thread's own would keep most of
 * a megabyte for itself; no caches of freed memory per thread, which keep another 0.3 MB and save no time here; and what is freed while
 * QEMU makes its machine goes back to the host, which is 1.1 MB: large pieces get mappings of their own, and the heap ends where its
 * last piece does.
 */
const MALLOC = {
  MALLOC_ARENA_MAX: "1",
  GLIBC_TUNABLES: ["tcache_count=0", "mmap_threshold=32768", "trim_threshold=65536", "top_pad=4096"]
    .map((tunable) => `glibc.malloc.${tunable}`)
    .join(":"),
};

function qemuEnvironment(qemu: QemuBinary): Record<string, string> {
  const env: Record<string, string> = { PATH: "/usr/bin:/bin", LC_ALL: "C", ...MALLOC };
  if (qemu.libraryPath) env["LD_LIBRARY_PATH"] = qemu.libraryPath;
  return env;
}
