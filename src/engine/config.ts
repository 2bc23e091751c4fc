/** What an engine is told when it is opened, and the few numbers of the engine that are choices. */
import type { Accelerator, DeviceProfile, HostArtifacts } from "../contract/machine.ts";
import { DEFAULT_PAUSES_MS, type RestartPauses } from "./restart-policy.ts";

/** How many prepared ones a template keeps: QEMUs blocked on their state socket, and warm paused clones. */
export interface PoolSizes {
  blocked: number;
  warm: number;
  /** Whether there is a parent that clones are copied from; absent: if there are warm ones. */
  parent?: boolean | undefined;
}

/** What of them there is; `standing`: QEMUs that have gone on from a process image and wait for somebody to let their guest run. */
export type PoolState = PoolSizes & { parent: boolean; standing: number };

/** Settings of an engine. */
export interface EngineConfig {
  stateDir: string;
  runDir: string;
  artifacts: HostArtifacts;
  /** Pool of the default shape's template; other templates have none until they are asked for. */
  pool: PoolSizes;
  /** Whether process images are made, under emulation; absent: if the pool has anything. Never where its `parent` is false. */
  processImages?: boolean;
  /** Device profiles of which the default size's templates are made in the background, beside the pool's. */
  profiles: readonly DeviceProfile[];
  /** Force an accelerator; absent: the probe chooses. */
  accelerator?: Accelerator;
  /** First uid of VMs; the gid of the default tenant is the same number. */
  uidBase: number;
  /** How many times the host's memory, less the reserve, all VMs could take together if each wrote all that it has. */
  overcommit: number;
  /** Pools are emptied when the host has less memory available than this, in bytes, and starts wait that would leave less. */
  memoryReserveBytes: number;
  /** Templates kept; the least recently used goes first. */
  templateLimit: number;
  /** Bytes kept of each output stream of a VM. */
  logLimitBytes: number;
  /** Pauses before a VM is started again by its policy. */
  restartPausesMs: RestartPauses;
  /** Milliseconds that a VM has to answer a daemon that was started after it, on a machine that is overloaded; then it is given up. */
  adoptionMs: number;
}

/** Settings that callers usually leave alone. */
export const CONFIG_DEFAULTS = {
  pool: { blocked: 2, warm: 4 },
  profiles: ["exec", "disk"] as readonly DeviceProfile[],
  uidBase: 900_000,
  overcommit: 10,
  memoryReserveBytes: 512 * 2 ** 20,
  templateLimit: 12,
  logLimitBytes: 64 * 2 ** 20,
  restartPausesMs: DEFAULT_PAUSES_MS,
  adoptionMs: 60_000,
} as const;

/** Milliseconds that each wait of the engine may take at most. */
export const LIMITS_MS = {
  /** A clone from request to ready, on a machine that is overloaded. */
  clone: 60_000,
  /** Cold boot of a guest kernel to the agent's hello; 2-3 s under TCG on a quiet machine. */
  boot: 90_000,
  /** Probe of an accelerator: a guest that crawls is no guest. */
  probe: 15_000,
  /** A QMP command or agent request on a running VM. */
  request: 10_000,
  /** A guest's unmounting of its disks before it ends. */
  unmount: 20_000,
  /** QEMU's end after it was told to quit or was killed. */
  exit: 10_000,
  /** The kernel's teardown of a killed QEMU that is not our child: 10-30 ms, during which nothing else is done. */
  teardown: 1_000,
  /** The start of another QEMU for a VM whose own is gone; its template may have to be built first. */
  revival: 300_000,
  /** How long a VM that is being adopted keeps others waiting for their turns. */
  adoptionTurn: 1_000,
  /** How long a daemon's start waits for VMs that it adopts, all together; each has `adoptionMs`. */
  adoptions: 5_000,
} as const;

/** Memory that QEMU itself may use beside the guest's, in bytes; part of the VM's memory limit. */
export const QEMU_OVERHEAD_BYTES = 192 * 2 ** 20;

/** Threads of one QEMU at most: its vCPUs, main loop, I/O workers. */
export const QEMU_PIDS = 128;

/** Memory of a VM that asks for none, in bytes. */
export const DEFAULT_MEMORY_BYTES = 128 * 2 ** 20;
