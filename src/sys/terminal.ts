/** What a command was started in: its terminal, raw mode, the flags of inherited descriptors, ignored signals. */
import { dlopen, FFIType, ptr } from "bun:ffi";

const { i32, u64, pointer } = FFIType;
const libc = dlopen("libc.so.6", {
  isatty: { args: [i32], returns: i32 },
  ioctl: { args: [i32, u64, pointer], returns: i32 },
  fcntl: { args: [i32, i32, u64], returns: i32 },
  tcgetattr: { args: [i32, pointer], returns: i32 },
  tcsetattr: { args: [i32, i32, pointer], returns: i32 },
  cfmakeraw: { args: [pointer], returns: FFIType.void },
  sigaction: { args: [i32, pointer, pointer], returns: i32 },
});
const c = libc.symbols;

const TIOCGWINSZ = 0x5413;
const F_GETFL = 3;
const F_SETFL = 4;
const TCSADRAIN = 1;
/** More than glibc's `struct termios` (60 bytes). */
const TERMIOS_BYTES = 128;
/** More than glibc's `struct sigaction` (152 bytes); it begins with the handler. */
const SIGACTION_BYTES = 256;
const SIG_IGN = 1n;

/** Whether a descriptor is a terminal. */
export function isTerminal(fd: number): boolean {
  return c.isatty(fd) === 1;
}

/** Size of the terminal in characters; `undefined` if the descriptor is none or its size is unknown. */
export function terminalSize(fd: number): { rows: number; columns: number } | undefined {
  const size = new Uint16Array(4);
  if (c.ioctl(fd, TIOCGWINSZ, ptr(size)) !== 0) return undefined;
  const [rows = 0, columns = 0] = size;
  return rows === 0 || columns === 0 ? undefined : { rows, columns };
}

/**
 * Puts a terminal into raw mode (cfmakeraw(3)): every key goes through, Ctrl-C included.
 * @returns the function that puts it back; it may be called more than once and at any moment, also while the process exits.
 */
export function enterRawMode(fd: number): () => void {
  const before = new Uint8Array(TERMIOS_BYTES);
  if (c.tcgetattr(fd, ptr(before)) !== 0) return () => {};
  const raw = before.slice();
  c.cfmakeraw(ptr(raw));
  c.tcsetattr(fd, TCSADRAIN, ptr(raw));
  let restored = false;
  return () => {
    if (restored) return;
    restored = true;
    c.tcsetattr(fd, TCSADRAIN, ptr(before));
  };
}

/**
 * Notes the flags of an inherited descriptor. Whoever reads or writes it without blocking sets O_NONBLOCK for everybody who
 * shares it, such as the next command of a pipeline in a shell.
 * @returns the function that sets them back.
 */
export function keepDescriptorFlags(fd: number): () => void {
  const flags = c.fcntl(fd, F_GETFL, 0);
  return () => {
    if (flags >= 0) c.fcntl(fd, F_SETFL, flags);
  };
}

/** Whether a signal was set to be ignored by whoever started this process, as nohup does. Ask before handling it. */
export function isSignalIgnored(signal: number): boolean {
  const action = new BigUint64Array(SIGACTION_BYTES / 8);
  return c.sigaction(signal, null, ptr(action)) === 0 && action[0] === SIG_IGN;
}
