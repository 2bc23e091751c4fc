/** The daemon as a process, over a fake engine. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { chmodSync, existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { listenUnix } from "../sys/libc.ts";
import { tryLockFile } from "../sys/lock.ts";

const program = join(import.meta.dir, "../../tests/support/fake-daemon.ts");
let directory = "";

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "mayflyd-"));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

interface Daemon extends AsyncDisposable {
  child: Bun.Subprocess<"ignore", "pipe", "pipe">;
  /** The line on the ready descriptor; empty when it ended without one. */
  ready: string;
  socketPath: string;
  stderr(): Promise<string>;
}

/** Starts a daemon and waits until it says that it is ready, or has ended. */
async function start(flags: string[] = [], env: Record<string, string> = {}, command?: string[]): Promise<Daemon> {
  const child = Bun.spawn(command ?? [process.execPath, program, ...flags, "--ready-fd", "3"], {
    env: { ...process.env, MAYFLY_RUN_DIR: directory, MAYFLY_STATE_DIR: directory, ...env },
    stdio: ["ignore", "pipe", "pipe", "pipe"],
  });
  const text = new Response(child.stderr).text();
  const ready = await firstLine(child.stdio[3]);
  return {
    child,
    ready,
    socketPath: join(directory, "mayfly.sock"),
    stderr: () => text,
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await child.exited;
    },
  };
}

async function firstLine(fd: number | null | undefined): Promise<string> {
  if (typeof fd !== "number") return "";
  for await (const chunk of Bun.file(fd).stream()) return new TextDecoder().decode(chunk).trimEnd();
  return "";
}

const healthy = async (unix: string) => (await fetch("http://mayfly/healthz", { unix })).text();

test("it says when it is ready, serves on a socket for its group, and ends with SIGTERM, its socket gone", async () => {
  await using daemon = await start();
  expect(daemon.ready).toBe(`ready unix:${daemon.socketPath}`);
  expect(statSync(daemon.socketPath).mode & 0o777).toBe(0o660);
  expect(await healthy(daemon.socketPath)).toBe("ok\n");
  daemon.child.kill("SIGHUP");
  expect(await healthy(daemon.socketPath)).toBe("ok\n");
  daemon.child.kill("SIGTERM");
  expect(await daemon.child.exited).toBe(0);
  expect(existsSync(daemon.socketPath)).toBe(false);
  expect(await daemon.stderr()).toMatch(
    /level=info msg=ready .*listen=unix:.*startMs=\d+\n.*msg=stopping signal=SIGTERM/,
  );
});

test("streams that are open when it stops are cut, and it does not wait for them", async () => {
  await using daemon = await start();
  const events = await fetch("http://mayfly/v1/events", { unix: daemon.socketPath });
  const reader = events.body?.getReader();
  await reader?.read();
  daemon.child.kill("SIGINT");
  expect(await daemon.child.exited).toBe(0);
});

test("two at once: the second says which is in its way, and the first goes on", async () => {
  await using first = await start();
  await using second = await start();
  expect(second.ready).toBe("");
  expect(await second.child.exited).toBe(125);
  expect(await second.stderr()).toContain("code=daemon_running");
  expect(await healthy(first.socketPath)).toBe("ok\n");
  await using third = await start(["--run-dir", join(directory, "other"), "--socket", first.socketPath]);
  expect(await third.child.exited).toBe(125);
  expect(await third.stderr()).toContain("another daemon answers there");
  expect(await healthy(first.socketPath)).toBe("ok\n");
});

test("a lock whose holder does not answer is waited for: it may be a daemon that has just been killed", async () => {
  let held = tryLockFile(join(directory, "mayflyd.lock"));
  const starting = start();
  // The daemon waits with the program flock, which is there as soon as it does.
  const release = setTimeout(() => held?.[Symbol.dispose](), 300);
  await using daemon = await starting;
  expect(daemon.ready).toStartWith("ready ");
  clearTimeout(release);
  daemon.child.kill("SIGKILL");
  await daemon.child.exited;
  held = tryLockFile(join(directory, "mayflyd.lock"));
  using _kept = held;
  await using second = await start();
  expect(await second.stderr()).toContain("code=daemon_running");
});

test("killed, it leaves a stale socket and lock, which the next one takes over", async () => {
  await using first = await start();
  first.child.kill("SIGKILL");
  await first.child.exited;
  expect(existsSync(first.socketPath)).toBe(true);
  await using second = await start();
  expect(await healthy(second.socketPath)).toBe("ok\n");
});

test("what is no socket at the path is not removed", async () => {
  writeFileSync(join(directory, "mayfly.sock"), "precious");
  await using daemon = await start();
  expect(await daemon.child.exited).toBe(125);
  expect(await daemon.stderr()).toContain("something that is no socket is there");
  expect(existsSync(daemon.socketPath)).toBe(true);
});

test("TCP needs a token, from a private file or the environment", async () => {
  await using without = await start(["--listen", "0"]);
  expect(await without.stderr()).toContain("without a token");
  const tokenFile = join(directory, "token");
  writeFileSync(tokenFile, "0123456789abcdef");
  chmodSync(tokenFile, 0o644);
  await using open = await start(["--listen", "0", "--token-file", tokenFile]);
  expect(await open.stderr()).toContain("its mode is 644");
  await using daemon = await start(["--listen", "127.0.0.1:0"], { MAYFLY_TOKEN: "0123456789abcdef" });
  daemon.child.kill("SIGTERM");
  const port = /listen=\S*127\.0\.0\.1:(\d+)/.exec(await daemon.stderr())?.[1];
  expect(Number(port)).toBeGreaterThan(0);
});

test("an address that is taken is named", async () => {
  const taken = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => taken.once("listening", resolve));
  const address = taken.address();
  const port = typeof address === "object" ? address?.port : 0;
  try {
    await using daemon = await start(["--listen", `127.0.0.1:${port}`], { MAYFLY_TOKEN: "0123456789abcdef" });
    expect(await daemon.child.exited).toBe(125);
    expect(await daemon.stderr()).toContain(`Cannot listen on 127.0.0.1:${port}`);
    expect(existsSync(daemon.socketPath)).toBe(false);
  } finally {
    taken.close();
  }
});

test("socket activation: it serves on the socket that it was given, and leaves it in place", async () => {
  const path = join(directory, "given.sock");
  const given = listenUnix(path, 16);
  // A client that came before the daemon: it waits in the socket's backlog.
  const early = connect(path);
  early.write("GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const answer = new Promise<string>((resolve) => early.once("data", (data) => resolve(String(data))));
  const child = Bun.spawn(["sh", "-c", 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"', "sh", process.execPath, program], {
    env: { ...process.env, MAYFLY_RUN_DIR: directory, MAYFLY_STATE_DIR: directory },
    stdio: ["ignore", "ignore", "pipe", given],
  });
  try {
    expect(await answer).toContain("200 OK");
    for (let count = 0; count < 3; count += 1) expect(await healthy(path)).toBe("ok\n");
    expect(existsSync(join(directory, "mayfly.sock"))).toBe(false);
    expect(existsSync(join(directory, "mayfly.sock.placeholder"))).toBe(false);
    child.kill("SIGTERM");
    expect(await child.exited).toBe(0);
    expect(await new Response(child.stderr).text()).toContain(`listen=unix:${path}`);
    expect(existsSync(path)).toBe(true);
  } finally {
    child.kill("SIGKILL");
  }
});

test("socket activation with something else than a listening unix socket is refused", async () => {
  const command = ["sh", "-c", 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3</dev/null', "sh", process.execPath, program];
  await using daemon = await start([], {}, command);
  expect(await daemon.child.exited).toBe(125);
  expect(await daemon.stderr()).toContain("descriptor 3: it is no listening unix stream socket");
});

test("variables of socket activation that are meant for another process are ignored", async () => {
  await using daemon = await start([], { LISTEN_PID: "1", LISTEN_FDS: "1" });
  expect(daemon.ready).toStartWith("ready ");
});

test("an engine that does not close does not keep it from ending", async () => {
  await using daemon = await start([], { FAKE_CLOSE: "never" });
  daemon.child.kill("SIGTERM");
  expect(await daemon.child.exited).toBe(0);
  expect(await daemon.stderr()).toContain("cannot close the engine");
});
