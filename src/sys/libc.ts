/** The C library through bun:ffi: what Bun has no call for. Each wrapper throws `system_call_failed` with the errno. */
import { dlopen, FFIType, type Pointer, ptr, read } from "bun:ffi";
import { MayflyError } from "../contract/errors.ts";

const { i32, u32, i64, u64, pointer } = FFIType;
const libc = dlopen("libc.so.6", {
  __errno_location: { args: [], returns: pointer },
  socket: { args: [i32, i32, i32], returns: i32 },
  socketpair: { args: [i32, i32, i32, pointer], returns: i32 },
  bind: { args: [i32, pointer, u32], returns: i32 },
  listen: { args: [i32, i32], returns: i32 },
  write: { args: [i32, pointer, u64], returns: i64 },
  pread: { args: [i32, pointer, u64, i64], returns: i64 },
  pwrite: { args: [i32, pointer, u64, i64], returns: i64 },
  lseek: { args: [i32, i64, i32], returns: i64 },
  fallocate: { args: [i32, i32, i64, i64], returns: i32 },
  flock: { args: [i32, i32], returns: i32 },
  linkat: { args: [i32, pointer, i32, pointer, i32], returns: i32 },
  syscall: { args: [i64, i64, i64, i64, i64], returns: i64 },
  poll: { args: [pointer, u64, i32], returns: i32 },
});
const c = libc.symbols;

const ERRNO_NAMES: Readonly<Record<number, string>> = {
  1: "EPERM",
  2: "ENOENT",
  3: "ESRCH",
  4: "EINTR",
  5: "EIO",
  6: "ENXIO",
  7: "E2BIG",
  8: "ENOEXEC",
  9: "EBADF",
  10: "ECHILD",
  11: "EAGAIN",
  12: "ENOMEM",
  13: "EACCES",
  14: "EFAULT",
  16: "EBUSY",
  17: "EEXIST",
  18: "EXDEV",
  19: "ENODEV",
  20: "ENOTDIR",
  21: "EISDIR",
  22: "EINVAL",
  23: "ENFILE",
  24: "EMFILE",
  25: "ENOTTY",
  26: "ETXTBSY",
  27: "EFBIG",
  28: "ENOSPC",
  29: "ESPIPE",
  30: "EROFS",
  31: "EMLINK",
  32: "EPIPE",
  36: "ENAMETOOLONG",
  38: "ENOSYS",
  39: "ENOTEMPTY",
  40: "ELOOP",
  71: "EPROTO",
  95: "EOPNOTSUPP",
  98: "EADDRINUSE",
  99: "EADDRNOTAVAIL",
  101: "ENETUNREACH",
  104: "ECONNRESET",
  105: "ENOBUFS",
  110: "ETIMEDOUT",
  111: "ECONNREFUSED",
  113: "EHOSTUNREACH",
  114: "EALREADY",
  122: "EDQUOT",
  125: "ECANCELED",
};

/** errno of the last failed call of this thread. Only valid directly after it. */
export function lastErrno(): number {
  const location = c.__errno_location();
  return location === null ? 0 : read.i32(location as Pointer, 0);
}

/** Name of an errno, e.g. `ENOENT`; `errno 200` if it has none here. */
export function errnoName(errno: number): string {
  return ERRNO_NAMES[errno] ?? `errno ${errno}`;
}

function failure(call: string, subject: string): MayflyError {
  const errno = lastErrno();
  const code = errno === 28 ? "disk_full" : "system_call_failed";
  return new MayflyError(code, `Cannot ${call} ${subject}: ${errnoName(errno)}`, { details: { errno } });
}

function check(result: number | bigint, call: string, subject: string): number {
  const value = Number(result);
  if (value < 0) throw failure(call, subject);
  return value;
}

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0o2000000;
/** Longest path of a unix socket, in bytes (sun_path without its final NUL). */
export const UNIX_PATH_MAX = 107;

/**
 * Makes a listening unix stream socket bound to `path`, which must not exist.
 * @returns its descriptor, close-on-exec here; a child gets it through `spawn`'s descriptor list.
 */
export function listenUnix(path: string, backlog: number): number {
  const bytes = Buffer.from(path);
  if (bytes.length > UNIX_PATH_MAX) {
    throw new MayflyError(
      "invalid_argument",
      `Cannot listen on ${path}: the path has ${bytes.length} bytes, a unix socket's at most ${UNIX_PATH_MAX}`,
      { details: { path } },
    );
  }
  const fd = check(c.socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), "make a socket for", path);
  const address = Buffer.alloc(110);
  address.writeUInt16LE(AF_UNIX, 0);
  bytes.copy(address, 2);
  try {
    check(c.bind(fd, ptr(address), 2 + bytes.length + 1), "bind", path);
    check(c.listen(fd, backlog), "listen on", path);
  } catch (error) {
    closeFd(fd);
    throw error;
  }
  return fd;
}

/**
 * Has a listening socket of Bun's keep more connections that wait to be accepted (listen(2) again; the kernel's own bound holds as well).
 * A Bun that does not tell the descriptor leaves it as it is.
 */
export function extendBacklog(listener: object, backlog: number): void {
  if ("fd" in listener && typeof listener.fd === "number" && listener.fd >= 0) {
    check(c.listen(listener.fd, backlog), "listen on", `descriptor ${listener.fd}`);
  }
}

/** A connected pair of unix stream sockets, both close-on-exec. */
export function socketPair(): [ours: number, theirs: number] {
  const fds = new Int32Array(2);
  check(c.socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ptr(fds)), "make", "a socket pair");
  return [fds[0] ?? -1, fds[1] ?? -1];
}

/** Closes a descriptor; an already closed one is our own mistake and throws. */
export function closeFd(fd: number): void {
  check(c.syscall(3, fd, 0, 0, 0), "close", `descriptor ${fd}`);
}

/** Writes all of `bytes` to a blocking descriptor (a device state fits a socket's buffer at once). */
export function writeAll(fd: number, bytes: Uint8Array, subject: string): void {
  let done = 0;
  while (done < bytes.length) {
    done += check(c.write(fd, ptr(bytes, done), bytes.length - done), "write to", subject);
  }
}

/** Reads exactly `into.length` bytes at `offset` (bytes; may be beyond 2^31). Throws when there are fewer. */
export function readAt(fd: number, into: Uint8Array, offset: number, subject: string): void {
  let done = 0;
  while (done < into.length) {
    const n = check(c.pread(fd, ptr(into, done), into.length - done, offset + done), "read", subject);
    if (n === 0) {
      throw new MayflyError("store_corrupt", `Cannot read ${subject}: it ends at ${offset + done} bytes`);
    }
    done += n;
  }
}

/** Where the next data (or, with `hole`, the next hole) begins at or after `offset`; undefined if there is none. */
export function seekData(fd: number, offset: number, hole: boolean, subject: string): number | undefined {
  const position = Number(c.lseek(fd, offset, hole ? 4 : 3));
  if (position >= 0) return position;
  if (lastErrno() === 6) return undefined;
  throw failure("seek in", subject);
}

/** Frees a range of a file: it reads as zeroes and takes no blocks (FALLOC_FL_PUNCH_HOLE, size kept). */
export function punchHole(fd: number, offset: number, length: number, subject: string): void {
  check(c.fallocate(fd, 3, offset, length), "punch a hole into", subject);
}

const AT_FDCWD = -100;
const AT_SYMLINK_FOLLOW = 0x400;

/** Gives an open file without a name one, which must not be taken. @returns the errno, 0 for none. */
export function nameFile(fd: number, path: string): number {
  const [from, to] = [Buffer.from(`/proc/self/fd/${fd}\0`), Buffer.from(`${path}\0`)];
  return c.linkat(AT_FDCWD, ptr(from), AT_FDCWD, ptr(to), AT_SYMLINK_FOLLOW) === 0 ? 0 : lastErrno();
}

const LOCK_EX = 2;
const LOCK_NB = 4;
const LOCK_UN = 8;

/** Tries to take an exclusive lock (flock). @returns whether it was taken; it goes with the last descriptor of what is open, whoever has that. */
export function tryLock(fd: number): boolean {
  return c.flock(fd, LOCK_EX | LOCK_NB) === 0;
}

/** Frees such a lock, also where a child has the descriptor, too. */
export function unlock(fd: number): void {
  check(c.flock(fd, LOCK_UN), "unlock", `descriptor ${fd}`);
}

const SYS_PIDFD_OPEN = 434;
const SYS_PIDFD_SEND_SIGNAL = 424;

/** Opens a pidfd. @returns undefined when there is no such process. */
export function pidfdOpen(pid: number): number | undefined {
  const fd = Number(c.syscall(SYS_PIDFD_OPEN, pid, 0, 0, 0));
  if (fd >= 0) return fd;
  if (lastErrno() === 3) return undefined;
  throw failure("open a pidfd of", `process ${pid}`);
}

/** Sends a signal through a pidfd. @returns false when the process has ended. */
export function pidfdSignal(fd: number, signal: number): boolean {
  if (Number(c.syscall(SYS_PIDFD_SEND_SIGNAL, fd, signal, 0, 0)) === 0) return true;
  if (lastErrno() === 3) return false;
  throw failure("signal through", `pidfd ${fd}`);
}

const SYS_WAIT4 = 61;
const WNOHANG = 1;
const WAIT_ALL = 0x40000000;

/** Waits for a child of ours that nothing else waits for. @returns its status as waitpid(2) has it; undefined if there is none. */
export function waitForChild(pid: number, how: "if it has ended" | "until it has ended"): number | undefined {
  const status = new Int32Array(1);
  const flags = WAIT_ALL | (how === "if it has ended" ? WNOHANG : 0);
  return Number(c.syscall(SYS_WAIT4, pid, ptr(status), flags, 0)) === pid ? status[0] : undefined;
}

/** Whether the process of a pidfd has ended (a zombie has). Blocks for at most `waitMs`. */
export function pidfdEnded(fd: number, waitMs = 0): boolean {
  const pollfd = Buffer.alloc(8);
  pollfd.writeInt32LE(fd, 0);
  pollfd.writeInt16LE(1, 4);
  return check(c.poll(ptr(pollfd), 1, waitMs), "poll", `pidfd ${fd}`) === 1;
}
