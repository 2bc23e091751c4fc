/** One valid document of each kind. */
import type {
  Image,
  RefreshResult,
  Snapshot,
  SystemInfo,
  Template,
  Vm,
  VmProcess,
  VmStats,
  Volume,
} from "../../src/contract/api.ts";

const at = "2026-01-02T03:04:05.000Z";

export const sampleVm: Vm = {
  id: "vm_aaaaaaaaaaaaaaaaaaaaaaaaaa",
  name: "vm1",
  state: "running",
  command: ["sleep", "1"],
  hostname: "vm1",
  labels: {},
  memoryBytes: 128 << 20,
  cpus: 1,
  templateId: "tpl_aaaaaaaaaaaaaaaaaaaaaaaaaa",
  origin: null,
  suspendedIn: null,
  rootfs: null,
  image: null,
  imageId: null,
  ports: [],
  mounts: [],
  restart: { name: "no" },
  restartCount: 0,
  health: null,
  stopSignal: 15,
  autoRemove: false,
  terminal: false,
  createdAt: at,
  startedAt: at,
  finishedAt: null,
  pid: 4242,
  exitCode: null,
  exitSignal: null,
  error: null,
  clone: { path: "warm", readyMs: 3.5, stages: { resume: 1.5 } },
};

export const sampleVolume: Volume = {
  name: "data",
  createdAt: at,
  sizeBytes: 10 * 2 ** 30,
  allocatedBytes: 4 << 20,
  labels: {},
  anonymous: false,
  vmId: null,
};

export const sampleStats: VmStats = {
  id: sampleVm.id,
  name: sampleVm.name,
  cpuUs: 1,
  uniqueMemoryBytes: 2,
  guestUniqueMemoryBytes: 1,
  qemuMemoryBytes: 1,
  sharedMemoryBytes: 3,
  mergedMemoryBytes: 0,
  guestUsedMemoryBytes: 1,
  guest: {
    memoryTotalBytes: 6,
    memoryAvailableBytes: 5,
    workloadMemoryBytes: 4,
    workloadCpuUs: 3,
    workloadPids: 2,
    uptimeMs: 1.5,
  },
};

/** Statistics of a VM. */
export function fakeStats({ id, name }: Vm): VmStats {
  return { ...sampleStats, id, name };
}

/** What a refresh of a VM gave. */
export function fakeRefresh({ id, name }: Vm): RefreshResult {
  const times = { stoppedMs: 5.5, longestStopMs: 2, tookMs: 100 };
  return { id, name, returnedBytes: 64 << 20, uniqueMemoryBytes: 12 << 20, ...times };
}

export const sampleProcess: VmProcess = {
  ...{ pid: 71, ppid: 1, pgid: 71, sid: 71, uid: 0, user: "root", state: "S", tty: null, nice: 0, threads: 1 },
  ...{ cpuMs: 1500, elapsedMs: 60_000, startedAt: at, virtualBytes: 4 << 20, residentBytes: 1 << 20 },
  name: "sleep",
  command: ["sleep", "1"],
};

export const sampleTemplate: Template = {
  id: "tpl_aaaaaaaaaaaaaaaaaaaaaaaaaa",
  name: "base",
  createdAt: at,
  lastUsedAt: null,
  shape: { memoryMiB: 128, vcpus: 1 },
  profile: "full",
  fingerprint: { qemuVersion: "10.0.2" },
  fingerprintHash: "0".repeat(64),
  compatible: true,
  differences: [],
  memory: { sizeBytes: 128 << 20, allocatedBytes: 40 << 20, sha256: "0".repeat(64) },
  deviceStateBytes: 9000,
  buildMs: 3000,
  application: null,
  pool: null,
};

export const sampleSnapshot: Snapshot = {
  id: "snap_aaaaaaaaaaaaaaaaaaaaaaaaaa",
  name: null,
  createdAt: at,
  kind: "checkpoint",
  templateId: sampleTemplate.id,
  vmId: sampleVm.id,
  vmName: sampleVm.name,
  origin: null,
  image: null,
  memoryBytes: 128 << 20,
  cpus: 1,
  pages: 100,
  zeroPages: 3,
  sizeBytes: 410_000,
  promotedTo: null,
  times: { stoppedMs: 6.25, vcpuStoppedMs: 4.5, durableMs: 31 },
};

export const sampleImage: Image = {
  id: "img_aaaaaaaaaaaaaaaaaaaaaaaaaa",
  name: "alpha",
  digest: `sha256:${"0".repeat(64)}`,
  fstype: "erofs",
  sizeBytes: 4096,
  createdAt: at,
  configDigest: null,
  manifestDigest: null,
  repoDigest: null,
  architecture: null,
  builtAt: null,
  layers: [],
  config: {},
};

export const sampleInfo: SystemInfo = {
  version: "0.1.0",
  pid: 1,
  stateDir: "/var/lib/mayfly",
  runDir: "/run/mayfly",
  accelerator: "tcg",
  acceleratorReason: "the probe guest did not run",
  qemu: { path: "/usr/bin/qemu-system-x86_64", version: "10.0.2", kind: "full" },
  kernelVersion: "6.1.0",
  agentBuildId: "0".repeat(32),
  cgroup: "v2",
  vms: 0,
  memory: { overcommit: 10, limitBytes: 230 * 2 ** 30, committedBytes: 0, availableBytes: 20 * 2 ** 30 },
  pools: [],
  daemonRssBytes: 1,
};
