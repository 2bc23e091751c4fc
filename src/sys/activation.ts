/** systemd's side of a service: sd_listen_fds(3) and sd_notify(3). */
import { dlopen, FFIType, ptr } from "bun:ffi";
import { MayflyError } from "../contract/errors.ts";

/** First descriptor that systemd passes. */
const FIRST_DESCRIPTOR = 3;

const AF_UNIX = 1;
const SOCK_DGRAM_CLOEXEC = 2 | 0o2000000;
const ADDRESS_BYTES = 110;

/**
 * The listening socket that systemd passed to this very process, if it passed one. The variables that say so are removed, so
 * that no child takes them for its own.
 * @throws `invalid_argument` when it passed several.
 */
export function activationSocket(): number | undefined {
  const { LISTEN_PID: pid, LISTEN_FDS: count } = process.env;
  for (const name of ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"]) delete process.env[name];
  if (Number(pid) !== process.pid || count === undefined || count === "0") return undefined;
  if (count === "1") return FIRST_DESCRIPTOR;
  throw new MayflyError(
    "invalid_argument",
    `Cannot take the sockets that systemd passed: it passed ${count}, the daemon takes 1`,
  );
}

/** Sends a state such as `READY=1` to the socket that NOTIFY_SOCKET names; without it, or when systemd has gone, nothing happens. */
export function notifySystemd(state: string): void {
  const target = process.env["NOTIFY_SOCKET"];
  if (target === undefined || !/^[/@]/.test(target)) return;
  const { i32, u32, u64, pointer } = FFIType;
  const libc = dlopen("libc.so.6", {
    socket: { args: [i32, i32, i32], returns: i32 },
    sendto: { args: [i32, pointer, u64, i32, pointer, u32], returns: i32 },
    close: { args: [i32], returns: i32 },
  });
  const name = Buffer.from(target);
  const address = Buffer.alloc(ADDRESS_BYTES);
  address.writeUInt16LE(AF_UNIX, 0);
  name.copy(address, 2);
  // A leading @ means an abstract socket: its address begins with a NUL and is as long as its name.
  if (target.startsWith("@")) address[2] = 0;
  const message = Buffer.from(state);
  const fd = libc.symbols.socket(AF_UNIX, SOCK_DGRAM_CLOEXEC, 0);
  if (fd >= 0) {
    libc.symbols.sendto(fd, ptr(message), message.length, 0, ptr(address), 2 + name.length);
    libc.symbols.close(fd);
  }
  libc.close();
}
