/** Processes of the host: starting one that outlives us, and telling a process from a later one with the same pid. */
import { closeSync, fstatSync, openSync, readdirSync, readFileSync, readlinkSync, readSync } from "node:fs";
import { pidfdEnded, pidfdOpen, pidfdSignal } from "./libc.ts";

export { type UniqueMemory, uniqueMemoryOf } from "./unique-memory.ts";

/** What identifies a process for good: a pid alone is used again. */
export interface ProcessIdentity {
  pid: number;
  /** Start time in clock ticks since boot, /proc/PID/stat field 22. */
  startTicks: number;
  bootId: string;
}

/** How a child ended. */
export interface ChildExit {
  exitCode: number | null;
  signal: string | null;
}

/** A child process that was started with {@link spawnDetached}. */
export interface DetachedChild {
  pid: number;
  exited: Promise<ChildExit>;
}

/** What {@link spawnDetached} needs. */
export interface SpawnRequest {
  command: readonly string[];
  env: Readonly<Record<string, string>>;
  /** Descriptors that the child has as 3, 4, 5 ... */
  descriptors: readonly number[];
  /** File that takes its standard error; its standard output goes there as well. */
  logPath: string;
}

/** State of a connected socket, as the kernel prints it. */
const CONNECTED = "03";

let bootIdCache: string | undefined;

/** The kernel's id of this boot. */
export function bootId(): string {
  bootIdCache ??= readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  return bootIdCache;
}

/** Starts a process in a session of its own, so that it lives on when this one ends. */
export function spawnDetached(request: SpawnRequest): DetachedChild {
  const log = openForAppending(request.logPath);
  try {
    const child = Bun.spawn([...request.command], {
      env: request.env,
      stdio: ["ignore", log, log, ...request.descriptors],
      detached: true,
    });
    const exited = child.exited.then(() => ({
      exitCode: child.exitCode,
      signal: child.signalCode === null ? null : String(child.signalCode),
    }));
    return { pid: child.pid, exited };
  } finally {
    closeSync(log);
  }
}

/** Opens a device for reading and writing, to hand it to a child. */
export function openDevice(path: string): number {
  return openSync(path, "r+");
}

/** Opens a log, made if need be, to hand it to a process. */
export function openForAppending(path: string): number {
  return openSync(path, "a", 0o600);
}

/** Opens a file for reading, to hand it to a process. */
export function openForReading(path: string): number {
  return openSync(path, "r");
}

/** Opens a file of the kernel's for writing, to hand it to a process. */
export function openForWriting(path: string): number {
  return openSync(path, "w");
}

/** Kills a child of ours that has not been waited for (its pid cannot have been used again). */
export function killChild(pid: number): void {
  process.kill(pid, "SIGKILL");
}

/** Identity of a living process. @returns undefined when there is none with this pid. */
export function identifyProcess(pid: number): ProcessIdentity | undefined {
  const startTicks = startTicksOf(pid);
  return startTicks === undefined ? undefined : { pid, startTicks, bootId: bootId() };
}

function startTicksOf(pid: number): number | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  } catch {
    return undefined;
  }
  // The command name, in parentheses, may hold anything: count fields after its end.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return Number(fields[19]);
}

/** A process that is not our child, held by a pidfd: no signal of ours can hit another one. */
export class ForeignProcess implements Disposable {
  readonly #pidfd: number;

  private constructor(
    readonly identity: ProcessIdentity,
    pidfd: number,
  ) {
    this.#pidfd = pidfd;
  }

  /** Opens it if it still is the one that was recorded. */
  static open(identity: ProcessIdentity): ForeignProcess | undefined {
    if (identity.bootId !== bootId()) return undefined;
    const pidfd = pidfdOpen(identity.pid);
    if (pidfd === undefined) return undefined;
    const process = new ForeignProcess(identity, pidfd);
    if (startTicksOf(identity.pid) === identity.startTicks && !process.ended) return process;
    process[Symbol.dispose]();
    return undefined;
  }

  get ended(): boolean {
    return pidfdEnded(this.#pidfd);
  }

  /** Waits for the end of a process that has been killed, which takes milliseconds. Blocks: for recovery at start only. */
  waitForEnd(limitMs: number): boolean {
    return pidfdEnded(this.#pidfd, limitMs);
  }

  /** @returns false when it has ended. */
  signal(signal: number): boolean {
    return pidfdSignal(this.#pidfd, signal);
  }

  [Symbol.dispose](): void {
    closeSync(this.#pidfd);
  }
}

/** Last `bytes` bytes of a file as text; empty when it is missing. */
export function tailOfFile(path: string, bytes: number): string {
  let fd: number;
  try {
    fd = openSync(path, "r");
  } catch {
    return "";
  }
  try {
    const { size } = fstatSync(fd);
    const buffer = Buffer.alloc(Math.min(size, bytes));
    const read = readSync(fd, buffer, 0, buffer.length, Math.max(0, size - bytes));
    return buffer.toString("utf8", 0, read);
  } finally {
    closeSync(fd);
  }
}

/** How many of its sockets a process has connected, as far as they are connected here: unix sockets (/proc/net/unix). */
export function connectedSockets(pid: number): number {
  const connected = new Set<string>();
  for (const line of readFileSync("/proc/net/unix", "latin1").split("\n")) {
    const [, , , , , state, inode] = line.split(/\s+/);
    if (state === CONNECTED && inode !== undefined) connected.add(`socket:[${inode}]`);
  }
  const own = readdirSync(`/proc/${pid}/fd`).map((fd) => linkOf(`/proc/${pid}/fd/${fd}`));
  return own.filter((target) => connected.has(target)).length;
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}

/** CPU time that a process has used, in microseconds; 0 when it has ended. */
export function cpuTimeUsOf(pid: number): number {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return (Number(fields[11]) + Number(fields[12])) * 10_000;
  } catch {
    return 0;
  }
}

/** Bytes of this process that are resident. */
export function ownRssBytes(): number {
  return process.memoryUsage.rss();
}

/** Whether this process is root's, with the rights that starting VMs needs. */
export function runsAsRoot(): boolean {
  return process.geteuid?.() === 0;
}
