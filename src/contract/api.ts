/**
 * The REST interface's documents as zod schemas: they validate requests, type the client, and are the source of the
 * OpenAPI document. Sizes are bytes, times ISO 8601 strings, durations milliseconds.
 */
import { z } from "zod";
import { CONTAINER_REQUEST, CONTAINER_VM } from "./container.ts";
import { CODES, type ErrorCode } from "./errors.ts";
import { IdlePolicy, IdleRequest } from "./idle.ts";
import { NAME_PATTERN } from "./ids.ts";
import { DEVICE_PROFILES } from "./machine.ts";
import { Origin } from "./snapshot.ts";

const name = z.string().regex(new RegExp(NAME_PATTERN), "a name has letters, digits, '_', '.', '-', at most 63");
const hostname = z
  .string()
  .regex(/^[a-zA-Z0-9]([a-zA-Z0-9-]{0,62})$/, "a host name has letters, digits and '-', at most 63");
const noNul = (text: string) => !text.includes("\0");
const text = z.string().max(32_768).refine(noNul, "must not contain NUL");
const environmentName = z.string().regex(/^[^=\0]+$/, "an environment variable's name has no '=' and no NUL");
const shape = z.object({ memoryMiB: z.int(), vcpus: z.int() });

/** RFC 9457 problem document with our code. */
export const Problem = z.object({
  type: z.string(),
  title: z.string(),
  status: z.int(),
  detail: z.string(),
  code: z.enum(Object.keys(CODES) as [ErrorCode, ...ErrorCode[]]),
  kind: z.string(),
  stage: z.string().optional(),
  vmId: z.string().optional(),
  details: z.record(z.string(), z.unknown()).optional(),
});

/** Size of a terminal in characters. */
export const TerminalSize = z.object({
  rows: z.int().min(0).max(65_535),
  columns: z.int().min(0).max(65_535),
});

/** A process to run in a VM. */
export const ExecRequest = z.strictObject({
  /** Program and arguments. A program without a slash is looked for in PATH. */
  command: z.array(text).min(1).max(1024),
  env: z.record(environmentName, text).optional(),
  workdir: text.optional(),
  /** `user[:group]` by name or number, looked up in the VM; default the image's, or 0:0. */
  user: z
    .string()
    .regex(/^[^:\s\0]{1,255}(:[^:\s\0]{1,255})?$/, "a user is USER or USER:GROUP, by name or number")
    .optional(),
  /** A terminal of this size; without it stdout and stderr are separate pipes. */
  terminal: TerminalSize.optional(),
  /** Whether standard input stays open for the client; otherwise it is /dev/null. */
  stdin: z.boolean().optional(),
  /** Milliseconds after which the process is killed with its tree. */
  timeoutMs: z.int().min(1).optional(),
});
export type ExecRequest = z.infer<typeof ExecRequest>;

/** A new VM, with or without a first command. */
export const CreateVmRequest = z.strictObject({
  ...ExecRequest.shape,
  ...CONTAINER_REQUEST,
  /**
   * Program and arguments of the main process, with which the VM ends; with an image, arguments of its entrypoint (default: the image's).
   * Absent without an image: the VM runs until it is removed.
   */
  command: z.array(text).min(1).max(1024).optional(),
  name: name.optional(),
  hostname: hostname.optional(),
  labels: z.record(z.string().max(255), z.string().max(4096)).optional(),
  /** Memory in bytes; default 128 MiB. Rounded up to a template's shape and limited inside the guest. */
  memoryBytes: z.int().min(1).optional(),
  /** CPUs, fractions allowed; default 1. */
  cpus: z.number().positive().optional(),
  /** Root file system: the name of an imported image, or an absolute path of an erofs or ext4 image on the host. */
  rootfs: text.optional(),
  /** Remove the VM and its logs when it ends. */
  autoRemove: z.boolean().optional(),
  /** false: do not take a prepared VM or QEMU. */
  pool: z.boolean().optional(),
  /** A snapshot to go on from, with an identity of its own: its id or name. */
  snapshot: text.optional(),
  /** Let the kernel share memory of this VM's QEMU that equals that of others with `merge` (KSM). A side channel between them: docs/SECURITY.md. */
  merge: z.boolean().optional(),
  /** What becomes of it while nothing is under way; default: it runs. With a snapshot: default that VM's. */
  idle: IdleRequest.optional(),
});
export type CreateVmRequest = z.infer<typeof CreateVmRequest>;

/** States of a VM. */
export const VmState = z.enum(["creating", "running", "restarting", "stopping", "suspended", "exited", "failed"]);
export type VmState = z.infer<typeof VmState>;

/** From what a VM was started: a warm clone, a copy of its template's parent, a QEMU blocked on its state socket, or nothing prepared. */
export const ClonePath = z.enum(["warm", "copy", "pool", "image", "cold"]);
export type ClonePath = z.infer<typeof ClonePath>;

/** A VM as listed and inspected. */
export const Vm = z.object({
  id: z.string(),
  name: z.string(),
  state: VmState,
  command: z.array(z.string()),
  hostname: z.string(),
  labels: z.record(z.string(), z.string()),
  memoryBytes: z.int(),
  cpus: z.number(),
  templateId: z.string(),
  /** What it was started from besides its template; null: the template alone. */
  origin: Origin.nullable(),
  /** The snapshot that it waits in, if it is suspended. */
  suspendedIn: z.string().nullable(),
  rootfs: z.string().nullable(),
  ...CONTAINER_VM,
  autoRemove: z.boolean(),
  /** Whether its memory may be merged with that of others; absent: not. */
  merge: z.boolean().optional(),
  /** What becomes of it while nothing is under way; absent: it runs. */
  idle: IdlePolicy.optional(),
  /** Since when it stands still because nothing was under way; absent: it does not. The first byte for it lets it go on. */
  pausedAt: z.string().optional(),
  terminal: z.boolean(),
  createdAt: z.string(),
  startedAt: z.string().nullable(),
  finishedAt: z.string().nullable(),
  /** Process id of its QEMU on the host, null when it has none. */
  pid: z.int().nullable(),
  /** Exit code of the main process as a shell reports it (128 + signal), null while it runs. */
  exitCode: z.int().nullable(),
  exitSignal: z.int().nullable(),
  /** Why the VM ended if not by its main process' exit. */
  error: Problem.nullable(),
  /** How it was started, and the milliseconds of each stage of the clone path. */
  clone: z.object({
    path: ClonePath.nullable(),
    readyMs: z.number().nullable(),
    stages: z.record(z.string(), z.number()),
  }),
});
export type Vm = z.infer<typeof Vm>;

/** Result of a command that was run to its end by one request. */
export const ExecResult = z.object({
  exitCode: z.int(),
  signal: z.int(),
  /** Output in base64, at most 1 MiB of each stream. */
  stdout: z.string(),
  stderr: z.string(),
  truncated: z.boolean(),
});
export type ExecResult = z.infer<typeof ExecResult>;

/** Resource use of a running VM. */
export const VmStats = z.object({
  id: z.string(),
  name: z.string(),
  /** Microseconds of CPU that its QEMU has used. */
  cpuUs: z.int(),
  /** Bytes that this VM has to itself on the host: anonymous, swapped and page tables of its QEMU. */
  uniqueMemoryBytes: z.int(),
  /** The guest's part of it: pages of guest memory copied from the template. */
  guestUniqueMemoryBytes: z.int(),
  /** The rest of it: QEMU's own heap, translated code, stacks and page tables. */
  qemuMemoryBytes: z.int(),
  /** Pages of its template's file that it has mapped, of which there is one copy for all. */
  sharedMemoryBytes: z.int(),
  /** Of the unique ones those that the kernel has merged with equal pages (KSM): they may be shared with others. */
  mergedMemoryBytes: z.int(),
  /** What the guest itself says that it uses; null while it is paused. */
  guestUsedMemoryBytes: z.int().nullable(),
  /** null while it is paused: it is not woken up to tell. */
  guest: z
    .object({
      memoryTotalBytes: z.int(),
      memoryAvailableBytes: z.int(),
      workloadMemoryBytes: z.int(),
      workloadCpuUs: z.int(),
      workloadPids: z.int(),
      uptimeMs: z.number(),
    })
    .nullable(),
});
export type VmStats = z.infer<typeof VmStats>;

/** What giving a VM's free memory back to the host has done. */
export const RefreshResult = z.object({
  id: z.string(),
  name: z.string(),
  /** Bytes of guest memory that the host has back; 0 if there was nothing to give. */
  returnedBytes: z.int(),
  /** `uniqueMemoryBytes` of its statistics afterwards. */
  uniqueMemoryBytes: z.int(),
  /** How long its vCPUs stood still, all stops together. */
  stoppedMs: z.number(),
  /** The longest of them. */
  longestStopMs: z.number(),
  /** From the request to the end. */
  tookMs: z.number(),
});
export type RefreshResult = z.infer<typeof RefreshResult>;

/** An entry of a directory in a guest. */
export const FileStat = z.object({
  name: z.string(),
  type: z.enum(["file", "directory", "symlink", "character", "block", "fifo", "socket"]),
  mode: z.int(),
  uid: z.int(),
  gid: z.int(),
  size: z.int(),
  mtime: z.string(),
  target: z.string().optional(),
});
export type FileStat = z.infer<typeof FileStat>;

export const ImportImageRequest = z.strictObject({
  name,
  /** Absolute path on the daemon's host of a tarball (plain, gzip, xz, zstd) or of an erofs or ext4 image. */
  path: text,
});
export type ImportImageRequest = z.infer<typeof ImportImageRequest>;

/** Something that may take longer than a second. */
export const Operation = z.object({
  id: z.string(),
  kind: z.enum([
    "template.build",
    "image.import",
    "image.pull",
    "image.load",
    "image.build",
    "snapshot.export",
    "snapshot.import",
    "snapshot.promote",
  ]),
  state: z.enum(["running", "done", "failed", "cancelled"]),
  step: z.string(),
  createdAt: z.string(),
  finishedAt: z.string().nullable(),
  /** Id of what it made; of several the first. */
  result: z.string().nullable(),
  /** Ids of all that it made. */
  results: z.array(z.string()),
  /** What is to be said of its end, e.g. that all was there already. */
  note: z.string().nullable(),
  error: Problem.nullable(),
});
export type Operation = z.infer<typeof Operation>;

/** Something that happened, as `/v1/events` sends it. */
export const Event = z.object({
  /** e.g. `vm.running`, `vm.exited`, `template.built`, `pool.refilled`. */
  type: z.string(),
  time: z.string(),
  id: z.string(),
  name: z.string().optional(),
  attributes: z.record(z.string(), z.unknown()),
});
export type Event = z.infer<typeof Event>;

/** What the daemon is and has. */
export const SystemInfo = z.object({
  version: z.string(),
  pid: z.int(),
  stateDir: z.string(),
  runDir: z.string(),
  accelerator: z.enum(["kvm", "tcg"]),
  acceleratorReason: z.string(),
  qemu: z.object({ path: z.string(), version: z.string(), kind: z.string() }),
  kernelVersion: z.string(),
  agentBuildId: z.string(),
  cgroup: z.enum(["v1", "v2", "none"]),
  vms: z.int(),
  /** What all VMs together could take if each took all that it may, QEMUs included, its limit, and what the host has available. */
  memory: z.object({
    /** How many times the host's memory, less a reserve, the limit is. */
    overcommit: z.number(),
    limitBytes: z.int(),
    committedBytes: z.int(),
    availableBytes: z.int(),
  }),
  pools: z.array(
    z.object({
      templateId: z.string(),
      shape,
      profile: z.enum(DEVICE_PROFILES),
      blocked: z.int(),
      /** QEMUs that have gone on from the template's process image, and stand still: as many as blocked ones, where there is no parent. */
      standing: z.int(),
      warm: z.int(),
      /** Whether there is a parent that clones are copied from. */
      parent: z.boolean(),
      target: z.object({ blocked: z.int(), standing: z.int(), warm: z.int(), parent: z.boolean() }),
    }),
  ),
  daemonRssBytes: z.int(),
});
export type SystemInfo = z.infer<typeof SystemInfo>;

/** Use of the disk, in bytes as allocated. */
export const DiskUsage = z.object({
  templates: z.object({
    count: z.int(),
    bytes: z.int(),
    reclaimableBytes: z.int(),
  }),
  images: z.object({
    count: z.int(),
    bytes: z.int(),
    reclaimableBytes: z.int(),
  }),
  vms: z.object({ count: z.int(), bytes: z.int(), reclaimableBytes: z.int() }),
  volumes: z.object({ count: z.int(), bytes: z.int(), reclaimableBytes: z.int() }),
  /** Of VMs; `POST /v1/snapshots/prune` removes some, `POST /v1/system/prune` none. */
  snapshots: z.object({ count: z.int(), bytes: z.int(), reclaimableBytes: z.int() }),
  /** Snapshots of directories, and file systems that scratch disks begin with: made again when they are needed. */
  directories: z.object({ count: z.int(), bytes: z.int(), reclaimableBytes: z.int() }),
});
export type DiskUsage = z.infer<typeof DiskUsage>;

/** What pruning removed. */
export const PruneResult = z.object({
  removed: z.array(z.string()),
  freedBytes: z.int(),
});
export type PruneResult = z.infer<typeof PruneResult>;

/**
 * Text messages of the stream sockets (`/v1/vms/run`, `/v1/vms/{id}/exec`, `/v1/vms/{id}/attach`), client to daemon.
 * Standard input comes as binary messages: one byte 0, then the bytes; at most 1 MiB unacknowledged.
 */
export const StreamRequest = z.discriminatedUnion("type", [
  z.object({ type: z.literal("create"), request: CreateVmRequest }),
  z.object({ type: z.literal("exec"), request: ExecRequest }),
  z.object({
    type: z.literal("attach"),
    stdin: z.boolean(),
    logs: z.boolean(),
  }),
  z.object({ type: z.literal("eof") }),
  z.object({ type: z.literal("resize"), ...TerminalSize.shape }),
  z.object({ type: z.literal("signal"), signal: z.int().min(1).max(64) }),
]);
export type StreamRequest = z.infer<typeof StreamRequest>;

/**
 * Text messages, daemon to client. Output comes as binary messages: one byte 1 (stdout) or 2 (stderr), then the bytes.
 * `ack.bytes` counts the bytes of standard input taken since the last `ack`. `exit` or `error` is the last message.
 */
export const StreamReply = z.discriminatedUnion("type", [
  z.object({ type: z.literal("progress"), step: z.string() }),
  z.object({ type: z.literal("started"), vm: Vm }),
  z.object({ type: z.literal("ack"), bytes: z.int() }),
  z.object({ type: z.literal("exit"), exitCode: z.int(), signal: z.int() }),
  z.object({ type: z.literal("error"), problem: Problem }),
]);
export type StreamReply = z.infer<typeof StreamReply>;

export * from "./container.ts";
export * from "./idle.ts";
export * from "./image.ts";
export * from "./inside.ts";
export * from "./snapshot.ts";
export { STDIN_WINDOW_BYTES, STREAM_CHANNELS } from "./stream.ts";
export * from "./template.ts";
export * from "./volume.ts";

/** Which signal to send; without one SIGKILL (9). */
export const KillRequest = z.strictObject({
  signal: z.int().min(1).max(64).optional(),
});
export type KillRequest = z.infer<typeof KillRequest>;

/** How long the main process has between its stop signal and SIGKILL; default the VM's `stopGraceMs`, or else 10 seconds. */
export const StopRequest = z.strictObject({
  graceMs: z.int().min(0).max(3_600_000).optional(),
});
export type StopRequest = z.infer<typeof StopRequest>;

/** What answers, and the version of the interface it speaks. */
export const Version = z.object({ version: z.string(), api: z.literal("v1"), pid: z.int() });
export type Version = z.infer<typeof Version>;
