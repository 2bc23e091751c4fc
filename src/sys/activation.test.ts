import { dlopen, FFIType, ptr } from "bun:ffi";
import { afterEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { activationSocket, notifySystemd } from "./activation.ts";

const { i32, u32, u64, pointer } = FFIType;
const libc = dlopen("libc.so.6", {
  socket: { args: [i32, i32, i32], returns: i32 },
  bind: { args: [i32, pointer, u32], returns: i32 },
  recv: { args: [i32, pointer, u64, i32], returns: i32 },
  close: { args: [i32], returns: i32 },
}).symbols;
const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const MSG_DONTWAIT = 0x40;

/** A datagram socket bound to `name`, as systemd has one. */
function receiver(name: string) {
  const fd = libc.socket(AF_UNIX, SOCK_DGRAM, 0);
  const address = Buffer.alloc(110);
  address.writeUInt16LE(AF_UNIX, 0);
  const length = address.write(name.replace(/^@/, "\0"), 2);
  expect(libc.bind(fd, ptr(address), 2 + length)).toBe(0);
  return {
    /** What has come; it is there as soon as it was sent. */
    take() {
      const buffer = Buffer.alloc(256);
      const bytes = libc.recv(fd, ptr(buffer), buffer.length, MSG_DONTWAIT);
      return bytes < 0 ? undefined : buffer.toString("utf8", 0, bytes);
    },
    [Symbol.dispose]: () => void libc.close(fd),
  };
}

const VARIABLES = ["NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];
afterEach(() => {
  for (const name of VARIABLES) delete process.env[name];
});

test("systemd is told through a socket with a path, and through an abstract one", () => {
  const directory = mkdtempSync(join(tmpdir(), "mayfly-notify-"));
  try {
    for (const name of [join(directory, "notify"), `@mayfly-notify-${process.pid}`]) {
      using systemd = receiver(name);
      process.env["NOTIFY_SOCKET"] = name;
      notifySystemd("READY=1");
      expect(systemd.take()).toBe("READY=1");
      expect(systemd.take()).toBeUndefined();
    }
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test("without a socket, or when nobody listens there, nothing happens", () => {
  notifySystemd("READY=1");
  process.env["NOTIFY_SOCKET"] = "/nowhere/notify";
  notifySystemd("READY=1");
  process.env["NOTIFY_SOCKET"] = "vsock:2:1";
  notifySystemd("READY=1");
});

test("a socket that was passed is taken once, and only by the process that it is for", () => {
  const pass = (pid: number, count: string) =>
    Object.assign(process.env, { LISTEN_PID: String(pid), LISTEN_FDS: count });
  expect(activationSocket()).toBeUndefined();
  pass(1, "1");
  expect(activationSocket()).toBeUndefined();
  pass(process.pid, "1");
  expect(activationSocket()).toBe(3);
  expect(process.env["LISTEN_FDS"]).toBeUndefined();
  expect(activationSocket()).toBeUndefined();
  pass(process.pid, "2");
  expect(activationSocket).toThrow("it passed 2, the daemon takes 1");
});
