/** Payloads of the requests, each checked before it is sent. Every function returns a view valid until the next is called. */
import { ENTROPY_BYTES, invalid, MAX_PATH, PayloadWriter } from "./wire.ts";

/** Longest numeric address, in bytes. */
const MAX_ADDRESS = 63;

/** A command to run. */
export interface ExecSpec {
  /** Command and arguments; `argv[0]` without a slash is looked for in the `PATH` of `env`. */
  argv: readonly string[];
  /** `NAME=value`, the whole environment. */
  env?: readonly string[];
  /** Working directory, `/` if not given. */
  cwd?: string;
  uid?: number;
  gid?: number;
  /** Supplementary groups. */
  groups?: readonly number[];
  /** File mode mask, 0o022 if not given. */
  umask?: number;
  /** Gives the process a terminal of this size; its output is channel 2 alone. */
  terminal?: { rows: number; columns: number };
  /** Opens standard input (otherwise /dev/null). */
  stdin?: boolean;
  /** Kills what the process leaves behind when it ends. */
  killTree?: boolean;
  /** PID 1 of the container: when it ends, all others end. */
  first?: boolean;
  /** With `first`: behind an init of the agent's, which passes signals on and reaps; a signal n that ends the command is code 128 + n. */
  init?: boolean;
  /** Outside of the container, among the agent's own files. */
  outside?: boolean;
  /** May start while the workload is frozen, and is not frozen with it. */
  hook?: boolean;
  /** Bit n: capability n stays in the bounding set, and root has it. All if not given. */
  capabilities?: bigint;
  /** As setrlimit(2) has them; {@link NO_LIMIT} is none. */
  limits?: readonly ProcessLimit[];
}

/** One limit of a process: `resource` is a number of setrlimit(2), e.g. 7 for open files. */
export interface ProcessLimit {
  resource: number;
  soft: bigint;
  hard: bigint;
}

/** RLIM_INFINITY. */
export const NO_LIMIT: bigint = 2n ** 64n - 1n;

/** What of a mount can be switched off. */
export interface MountFlags {
  readOnly?: boolean;
  nosuid?: boolean;
  nodev?: boolean;
  noexec?: boolean;
}

/** What is mounted in a container. `target` is absolute, made if missing, and never outside of the root. */
export type ContainerMount =
  | ({ kind: "tmpfs"; target: string; sizeBytes?: number; mode?: number } & MountFlags)
  /** `disk` 0 to 2 is /dev/vdc to /dev/vde. An ext4 that is smaller than `sizeBytes` grows to that size. */
  | ({ kind: "disk"; target: string; disk: number; fstype: "erofs" | "ext4"; sizeBytes?: number } & MountFlags)
  /** A directory of the root that stays writable when the root is not. */
  | { kind: "directory"; target: string };

/** A container's root and mounts. */
export interface ContainerSpec {
  /** Of the root disk. */
  fstype: "erofs" | "ext4";
  readOnly?: boolean;
  /** What is written goes to the scratch disk (ext4) instead of memory. */
  scratch?: boolean;
  /** The root disk is the one that was mounted before: what the guest has read of it still holds. */
  sameRoot?: boolean;
  /** Size of the memory file system over the root; absent or 0: half of the memory. */
  upperBytes?: number;
  /** Size of /dev/shm; absent or 0: 64 MiB. */
  shmBytes?: number;
  /** In the order of mounting. */
  mounts?: readonly ContainerMount[];
}

/** What makes a clone itself. */
export interface IdentitySpec {
  /** Wall-clock time to set, nanoseconds since 1970. */
  realtimeNs: bigint;
  /** 64 fresh random bytes. */
  entropy: Uint8Array;
  /** 16 bytes. */
  machineId: Uint8Array;
  /** 6 bytes; all zero means no network. */
  mac?: Uint8Array;
  hostname: string;
}

/** Limits of the workload; 0 or absent means none. */
export interface LimitSpec {
  memoryBytes?: number;
  pids?: number;
  /** 1000 is one CPU. */
  cpuMillis?: number;
}

/** How a file is written. */
export interface WriteSpec {
  /** Adds to the file's end; otherwise the file is replaced at once when all has arrived. */
  append?: boolean;
  /** Fails if the file exists. */
  exclusive?: boolean;
  /** Makes missing directories above it. */
  parents?: boolean;
  /** Permission bits, 0o644 if not given. */
  mode?: number;
  uid?: number;
  gid?: number;
}

const NO_MAC = new Uint8Array(6);
const ALL_CAPABILITIES = 2n ** 64n - 1n;
const MOUNT_KINDS = { tmpfs: 1, disk: 2, directory: 3 } as const;
const writer = new PayloadWriter();
const quote = (text: string) => JSON.stringify(text);

function flags(...set: readonly (readonly [boolean | undefined, number])[]): number {
  return set.reduce((sum, [on, bit]) => (on === true ? sum | bit : sum), 0);
}

function path(name: string, value: string): string {
  if (value === "") throw invalid(`Cannot ${name}: the path is empty`);
  return value;
}

/** @throws `invalid_argument` for an empty argv, NUL characters, numbers out of range, or more than 64 KiB in sum. */
export function encodeExec(spec: ExecSpec): Uint8Array {
  const { argv, env = [], groups = [], limits = [], terminal } = spec;
  const command = argv[0];
  if (command === undefined || command === "") throw invalid("Cannot run a command: argv is empty");
  for (const entry of env) {
    if (entry.indexOf("=") < 1) {
      throw invalid(`Cannot run ${quote(command)}: the environment entry ${quote(entry)} is not NAME=value`);
    }
  }
  const out = writer
    .begin(`run ${quote(command)}`)
    .u32("flags", execFlags(spec))
    .u32("uid", spec.uid ?? 0)
    .u32("gid", spec.gid ?? 0)
    .u32("umask", spec.umask ?? 0o022)
    .u16("rows", terminal?.rows ?? 0)
    .u16("columns", terminal?.columns ?? 0)
    .u16("the number of arguments", argv.length)
    .u16("the number of environment entries", env.length)
    .u16("the number of groups", groups.length)
    .u16("the number of limits", limits.length)
    .u64("the capabilities", spec.capabilities ?? ALL_CAPABILITIES)
    .string("the working directory", spec.cwd ?? "/", MAX_PATH);
  for (const argument of argv) out.string("the argument", argument);
  for (const entry of env) out.string("the environment entry", entry);
  for (const group of groups) out.u32("the group", group);
  for (const { resource, soft, hard } of limits) {
    out.u32("the resource", resource).u64("the soft limit", soft).u64("the hard limit", hard);
  }
  return out.end();
}

function execFlags(spec: ExecSpec): number {
  return flags(
    [spec.terminal !== undefined, 1],
    [spec.stdin, 2],
    [spec.killTree, 4],
    [spec.first, 8],
    [spec.init, 16],
    [spec.outside, 32],
    [spec.hook, 64],
  );
}

/** @param tree reaches every process of the tree; 9 then kills the whole cgroup. */
export function encodeSignal(signal: number, tree: boolean): Uint8Array {
  if (signal < 1 || signal > 64) throw invalid(`Cannot send a signal: ${signal} is not a signal from 1 to 64`);
  return writer
    .begin("send a signal")
    .u32("the signal", signal)
    .u32("the scope", tree ? 1 : 0)
    .end();
}

/** Payload of RESIZE: the size of a terminal in characters. */
export function encodeResize(rows: number, columns: number): Uint8Array {
  return writer.begin("resize a terminal").u16("rows", rows).u16("columns", columns).end();
}

/** @param length in bytes; undefined reads to the end. */
export function encodeFileRead(file: string, offset: number, length: number | undefined): Uint8Array {
  const what = `read ${quote(file)}`;
  const out = writer.begin(what).u53("the offset", offset);
  if (length === undefined) out.u64("the length", 2n ** 64n - 1n);
  else out.u53("the length", length);
  return out.u32("flags", 0).string("the path", path(what, file), MAX_PATH).end();
}

/** Payload of FILE_WRITE. */
export function encodeFileWrite(file: string, spec: WriteSpec): Uint8Array {
  const what = `write ${quote(file)}`;
  return writer
    .begin(what)
    .u32("flags", flags([spec.append, 1], [spec.exclusive, 2], [spec.parents, 4]))
    .u32("the mode", spec.mode ?? 0o644)
    .u32("uid", spec.uid ?? 0)
    .u32("gid", spec.gid ?? 0)
    .string("the path", path(what, file), MAX_PATH)
    .end();
}

/** @param noFollow describes a final symlink itself. */
export function encodeFileStat(file: string, noFollow: boolean): Uint8Array {
  const what = `stat ${quote(file)}`;
  return writer
    .begin(what)
    .u32("flags", noFollow ? 1 : 0)
    .string("the path", path(what, file), MAX_PATH)
    .end();
}

/** @param cookie where to go on; 0n starts. */
export function encodeFileList(file: string, cookie: bigint): Uint8Array {
  const what = `list ${quote(file)}`;
  return writer.begin(what).u64("the cookie", cookie).string("the path", path(what, file), MAX_PATH).end();
}

/** Payload of FILE_MKDIR. */
export function encodeFileMkdir(file: string, parents: boolean, mode: number): Uint8Array {
  const what = `make the directory ${quote(file)}`;
  return writer
    .begin(what)
    .u32("flags", parents ? 1 : 0)
    .u32("the mode", mode)
    .string("the path", path(what, file), MAX_PATH)
    .end();
}

/** Payload of FILE_REMOVE. */
export function encodeFileRemove(file: string, recursive: boolean, missingOk: boolean): Uint8Array {
  const what = `remove ${quote(file)}`;
  return writer
    .begin(what)
    .u32("flags", flags([recursive, 1], [missingOk, 2]))
    .string("the path", path(what, file), MAX_PATH)
    .end();
}

/** @throws `invalid_argument` for an empty or too long hostname (64 bytes, Linux's limit) or byte arrays of other sizes. */
export function encodeIdentity(spec: IdentitySpec): Uint8Array {
  if (spec.hostname === "") throw invalid("Cannot set the identity: the hostname is empty");
  return writer
    .begin("set the identity")
    .u64("the time", spec.realtimeNs)
    .raw("the entropy", spec.entropy, ENTROPY_BYTES)
    .raw("the machine id", spec.machineId, 16)
    .raw("the MAC address", spec.mac ?? NO_MAC, 6)
    .u16("zero", 0)
    .string("the hostname", spec.hostname, 64)
    .end();
}

/** @throws `invalid_argument` for targets that are not absolute and sizes out of range. */
export function encodeContainer(spec: ContainerSpec): Uint8Array {
  const { mounts = [] } = spec;
  const out = writer
    .begin("build the container")
    .u32("flags", flags([spec.readOnly, 1], [spec.scratch, 2], [spec.sameRoot, 4]))
    .u53("the size of the upper file system", spec.upperBytes ?? 0)
    .u53("the size of /dev/shm", spec.shmBytes ?? 0)
    .string("the type", spec.fstype)
    .u16("the number of mounts", mounts.length);
  for (const mount of mounts) encodeMount(out, mount);
  return out.end();
}

function encodeMount(out: PayloadWriter, mount: ContainerMount): void {
  const { kind, target } = mount;
  if (!target.startsWith("/")) {
    throw invalid(`Cannot build the container: the target ${quote(target)} of a mount is not absolute`);
  }
  const off: MountFlags = kind === "directory" ? {} : mount;
  out
    .u8("the kind", MOUNT_KINDS[kind])
    .u8("the disk", kind === "disk" ? mount.disk : 0)
    .u16("the flags", flags([off.readOnly, 1], [off.nosuid, 2], [off.nodev, 4], [off.noexec, 8]))
    .u32("the mode", kind === "tmpfs" ? (mount.mode ?? 0) : 0)
    .u53("the size", kind === "directory" ? 0 : (mount.sizeBytes ?? 0))
    .string("the type", kind === "disk" ? mount.fstype : "")
    .string("the target", target, MAX_PATH);
}

/** @param trim gives free blocks of the writable disks back first. */
export function encodeTeardown(trim: boolean): Uint8Array {
  return writer
    .begin("tear the container down")
    .u32("flags", trim ? 1 : 0)
    .end();
}

/** Payload of CONNECT. @param address numeric; empty: 127.0.0.1, then ::1. */
export function encodeConnect(port: number, address: string): Uint8Array {
  return writer
    .begin(`connect to port ${port}`)
    .u16("the port", port)
    .u16("zero", 0)
    .string("the address", address, MAX_ADDRESS)
    .end();
}

/** @param realtimeNs 0n only asks. */
export function encodeTime(realtimeNs: bigint): Uint8Array {
  return writer.begin("set the time").u64("the time", realtimeNs).end();
}

/** Payload of TRIM: at most so many bytes are filled. */
export function encodeTrim(maxBytes: number): Uint8Array {
  return writer.begin("trim free memory").u53("the size", maxBytes).end();
}

/** Payload of LIMITS: the workload's; what is absent is without limit. */
export function encodeLimits(spec: LimitSpec): Uint8Array {
  return writer
    .begin("set limits")
    .u53("the memory limit", spec.memoryBytes ?? 0)
    .u53("the process limit", spec.pids ?? 0)
    .u32("the CPU limit", spec.cpuMillis ?? 0)
    .u32("zero", 0)
    .end();
}
