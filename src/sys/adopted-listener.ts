/**
 * Serving on a listening socket that somebody else made (systemd's socket activation).
 *
 * Bun 1.4.5 has no way to say this: `Bun.serve` ignores `fd`, `Bun.listen` takes it for a connection, and `net.Server.listen({fd})`
 * fails. So a listener is made on a placeholder path, and the descriptor under it is replaced: dup3(2) puts the given socket in its
 * place, and the event loop's epoll set, which forgets a descriptor whose file is closed, gets it again with the same user data,
 * which the kernel shows in /proc/self/fdinfo (proc(5), "tfd"). From then on Bun accepts from the given socket.
 * The daemon asks itself for an answer through it before it says that it is ready, so a Bun that works otherwise is found out.
 */
import { dlopen, FFIType, ptr } from "bun:ffi";
import { readdirSync, readFileSync, readlinkSync, unlinkSync } from "node:fs";
import { MayflyError } from "../contract/errors.ts";

const O_CLOEXEC = 0o2000000;
const O_NONBLOCK = 0o4000;
const F_GETFL = 3;
const F_SETFL = 4;
const EPOLL_CTL_ADD = 1;
/** struct epoll_event is packed on x86-64: u32 events, u64 data. */
const EPOLL_EVENT_BYTES = 12;

interface Registration {
  epollFd: number;
  events: number;
  data: bigint;
}

/**
 * Path of a listening unix stream socket that this process was given.
 * @throws `invalid_argument` when the descriptor is none.
 */
export function listeningPath(fd: number): string {
  const entry = unixSockets().find(({ inode }) => inode === inodeOf(fd));
  // Flag 0x10000 (__SO_ACCEPTCON) and type 1 (SOCK_STREAM): af_unix.c, unix_seq_show.
  if (entry?.path !== undefined && entry.listening) return entry.path;
  throw new MayflyError(
    "invalid_argument",
    `Cannot serve on descriptor ${fd}: it is no listening unix stream socket with a path`,
  );
}

/**
 * Makes the Bun listener that is bound to the unix path `placeholder` accept from `given` instead, and removes the path.
 * @throws `connection_failed` when this Bun's listener is not found or the kernel refuses.
 */
export function replaceListener(placeholder: string, given: number): void {
  const { i32, pointer } = FFIType;
  const libc = dlopen("libc.so.6", {
    dup3: { args: [i32, i32, i32], returns: i32 },
    fcntl: { args: [i32, i32, i32], returns: i32 },
    epoll_ctl: { args: [i32, i32, i32, pointer], returns: i32 },
  });
  const { dup3, fcntl, epoll_ctl } = libc.symbols;
  try {
    const listener = descriptorBoundTo(placeholder);
    const { epollFd, events, data } = registrationOf(listener);
    const event = Buffer.alloc(EPOLL_EVENT_BYTES);
    event.writeUInt32LE(events, 0);
    event.writeBigUInt64LE(data, 4);
    const replaced =
      fcntl(given, F_SETFL, fcntl(given, F_GETFL, 0) | O_NONBLOCK) >= 0 &&
      dup3(given, listener, O_CLOEXEC) >= 0 &&
      epoll_ctl(epollFd, EPOLL_CTL_ADD, listener, ptr(event)) >= 0;
    if (!replaced) throw failed("the kernel refused to replace the listener");
  } finally {
    libc.close();
    unlinkSync(placeholder);
  }
}

function descriptorBoundTo(path: string): number {
  const inode = unixSockets().find((entry) => entry.path === path)?.inode;
  const found = descriptors().find((fd) => inode !== undefined && inodeOf(fd) === inode);
  if (found === undefined) throw failed(`no descriptor is bound to ${path}`);
  return found;
}

/** How a descriptor is registered with an epoll set of this process. */
function registrationOf(fd: number): Registration {
  for (const epollFd of descriptors().filter((candidate) => linkOf(candidate) === "anon_inode:[eventpoll]")) {
    const text = readFileSync(`/proc/self/fdinfo/${epollFd}`, "latin1");
    for (const [, tfd, events, data] of text.matchAll(/^tfd:\s+(\d+) events:\s+([0-9a-f]+) data:\s+([0-9a-f]+)/gm)) {
      if (Number(tfd) === fd) return { epollFd, events: Number.parseInt(events ?? "", 16), data: BigInt(`0x${data}`) };
    }
  }
  throw failed(`descriptor ${fd} is in no epoll set`);
}

function descriptors(): number[] {
  return readdirSync("/proc/self/fd").map(Number);
}

function linkOf(fd: number): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return "";
  }
}

function inodeOf(fd: number): string | undefined {
  return /^socket:\[(\d+)\]$/.exec(linkOf(fd))?.[1];
}

/** Rows of /proc/net/unix: Num RefCount Protocol Flags Type St Inode Path. */
function unixSockets(): { inode: string; path: string | undefined; listening: boolean }[] {
  const rows = readFileSync("/proc/net/unix", "utf8").split("\n").slice(1);
  return rows.map((row) => {
    const [, , , flags = "0", type = "0", , inode = "", ...path] = row.trim().split(/\s+/);
    const listening = (Number.parseInt(flags, 16) & 0x10000) !== 0 && Number.parseInt(type, 16) === 1;
    return { inode, path: path.length === 0 ? undefined : path.join(" "), listening };
  });
}

function failed(reason: string): MayflyError {
  return new MayflyError("connection_failed", `Cannot serve on the socket that was given: ${reason}`);
}
