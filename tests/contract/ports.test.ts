/** Ports of the host that lead into a VM, over real QEMU. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Vm } from "../../src/contract/api.ts";
import { Deadline } from "../../src/sys/deadline.ts";
import { soon, TestEngine } from "../support/engine.ts";
import { TestDaemon } from "../support/engine-daemon.ts";
import { describeVms } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";
import { TcpClient } from "../support/tcp-client.ts";
import {
  areNumbers,
  ask,
  askOnce,
  SERVICE,
  SERVICE_PATH,
  type ServicePort,
  START_SERVICE,
  tcpService,
} from "../support/tcp-service.ts";

const MEGABYTE = 2 ** 20;
const LIMIT_MS = 120_000;
const PUBLISHED = Object.values(SERVICE).map((guestPort) => ({ hostIp: "127.0.0.1", hostPort: 0, guestPort }));

describeVms("forwarded ports", () => {
  const directory = mkdtempSync(join(tmpdir(), "mayfly-ports-"));
  let program: Uint8Array;
  let vms: TestEngine;
  let vm: Vm;
  /** Descriptors of the guest's agent when nobody is connected. */
  let agentDescriptors: string;

  beforeAll(async () => {
    program = await tcpService(directory);
    vms = await TestEngine.open();
    vm = await startService();
    agentDescriptors = await vms.shell(vm.id, "ls /proc/1/fd | wc -l");
  }, LIMIT_MS);
  afterAll(async () => {
    await vms[Symbol.asyncDispose]();
    rmSync(directory, { recursive: true, force: true });
  });
  beforeEach(() => vms.markDescriptors());

  async function startService(): Promise<Vm> {
    const started = await vms.start({ ports: PUBLISHED });
    const options = { mode: 0o755, uid: 0, gid: 0, parents: false, deadline: soon() };
    await vms.engine.writeFile(started.id, SERVICE_PATH, contentOf(program), options);
    await vms.shell(started.id, START_SERVICE);
    return started;
  }

  const connect = (name: ServicePort) => TcpClient.open(portOf(vm, name));

  /** Connections that stop reading once the guest has begun to send. */
  async function stuckReaders(count: number): Promise<TcpClient[]> {
    const clients = await Promise.all(Array.from({ length: count }, () => connect("endless")));
    for (const client of clients) {
      await client.has(4);
      client.socket.pause();
    }
    return clients;
  }

  /** Neither side has anything left of earlier connections. */
  async function nothingLeft(): Promise<void> {
    const deadline = Deadline.after(20_000);
    let left = "";
    do {
      left = await vms.shell(vm.id, "ls /proc/1/fd | wc -l");
    } while (left !== agentDescriptors && deadline.remainingMs > 0);
    expect(left).toBe(agentDescriptors);
    expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
  }

  test(
    "six hundred requests, each on a connection of its own, and two thousand on one",
    async () => {
      const port = portOf(vm, "http");
      for (let i = 0; i < 600; i++) expect(await askOnce(port, `/own/${i}`)).toBe(`/own/${i}`);
      const client = await connect("http");
      for (let i = 0; i < 2000; i++) expect(await ask(client, `/kept/${i}`)).toBe(`/kept/${i}`);
      client.finish();
      await client.ended.promise;
      await nothingLeft();
    },
    LIMIT_MS,
  );

  test(
    "five hundred connections at once, none of which hears of another",
    async () => {
      const clients = await Promise.all(Array.from({ length: 500 }, () => connect("echo")));
      await Promise.all(clients.map((client, i) => client.send(`number ${i}`)));
      await Promise.all(clients.map((client, i) => client.has(`number ${i}`.length)));
      expect(clients.map(({ text }) => text)).toEqual(clients.map((_, i) => `number ${i}`));
      for (const client of clients) client.finish();
      await Promise.all(clients.map(({ ended }) => ended.promise));
      await nothingLeft();
    },
    LIMIT_MS,
  );

  test(
    "programs of the guest's own serve as well as ours",
    async () => {
      const ports = [8000, 8001].map((guestPort) => ({ hostIp: "127.0.0.1", hostPort: 0, guestPort }));
      const own = await vms.start({ ports });
      const servers = "httpd -p 8000 -h /tmp && { nc -ll -p 8001 -e cat & } </dev/null >/dev/null 2>&1";
      const listen = "until [ $(netstat -ltn | grep -c ':800[01] ') = 2 ]; do usleep 20000; done";
      await vms.shell(own.id, `echo hello from the guest >/tmp/index.html; ${servers}; ${listen}`);
      const [http = 0, echo = 0] = own.ports.map(({ hostPort }) => hostPort);
      const page = await fetch(`http://127.0.0.1:${http}/`, { keepalive: false });
      expect(await page.text()).toBe("hello from the guest\n");
      const client = await TcpClient.open(echo);
      await client.send("said before the end");
      client.finish();
      await client.ended.promise;
      expect(client.text).toBe("said before the end");
      await vms.remove(own.id);
      await nothingLeft();
    },
    LIMIT_MS,
  );

  test("the client's direction ends first, then the guest's", async () => {
    const client = await connect("echo");
    await client.send("said before the end");
    client.finish();
    await client.ended.promise;
    expect(client.text).toBe("said before the end");
    expect(await client.closed.promise).toBeUndefined();
    await nothingLeft();
  });

  test("the guest's direction ends first, then the client's", async () => {
    const client = await connect("lastWord");
    await client.ended.promise;
    expect(client.text).toBe("bye");
    await client.send("said after your end");
    client.finish();
    await client.closed.promise;
    const heard = "until [ -e /tmp/heard ]; do usleep 20000; done; cat /tmp/heard";
    expect(await vms.shell(vm.id, heard)).toBe("said after your end");
    await nothingLeft();
  });

  test(
    "32 MiB each way come as they went",
    async () => {
      const client = await connect("echo");
      const [sent, came] = [new Bun.CryptoHasher("sha256"), new Bun.CryptoHasher("sha256")];
      client.onData = (chunk) => came.update(chunk);
      const part = new Uint8Array(MEGABYTE);
      for (let i = 0; i < 32; i++) {
        for (let at = 0; at < part.length; at += 65_536) crypto.getRandomValues(part.subarray(at, at + 65_536));
        sent.update(part);
        await client.send(part);
      }
      client.finish();
      await client.ended.promise;
      expect(client.receivedBytes).toBe(32 * MEGABYTE);
      expect(came.digest("hex")).toBe(sent.digest("hex"));
      await nothingLeft();
    },
    LIMIT_MS,
  );

  test(
    "readers that stop do not stop others, and get everything when they go on",
    async () => {
      const stuck = await stuckReaders(30);
      const fast = await connect("endless");
      const before = stuck.map(({ receivedBytes }) => receivedBytes);
      await fast.has(MEGABYTE);
      expect(stuck.map(({ receivedBytes }) => receivedBytes)).toEqual(before);
      expect(await askOnce(portOf(vm, "http"), "/quick")).toBe("/quick");
      const [first] = stuck;
      first?.socket.resume();
      await first?.has(MEGABYTE);
      for (const client of [fast, first]) expect(areNumbers(Buffer.concat(client?.received ?? []))).toBe(true);
      for (const client of [...stuck, fast]) client.socket.terminate();
      await nothingLeft();
    },
    LIMIT_MS,
  );

  test(
    "writers that nobody reads do not stop others",
    async () => {
      const stuck = await Promise.all(Array.from({ length: 20 }, () => connect("silent")));
      let failed = 0;
      for (const client of stuck) {
        client.send(new Uint8Array(16 * MEGABYTE)).catch(() => {
          failed += 1;
        });
      }
      const talk = await connect("echo");
      const [bytes, count] = [Buffer.alloc(65_536, "talk "), 32];
      for (let i = 1; i <= count; i++) {
        await talk.send(bytes);
        await talk.has(i * bytes.length);
      }
      expect(failed).toBe(0);
      for (const client of [...stuck, talk]) client.socket.terminate();
      await nothingLeft();
    },
    LIMIT_MS,
  );

  test("a port that nobody listens on resets the client", async () => {
    const client = await connect("nobody");
    expect(await client.closed.promise).toBe("ECONNRESET");
    await nothingLeft();
  });

  test("what is reset in the guest is reset here", async () => {
    const client = await connect("reset");
    await client.send("the first byte");
    expect(await client.closed.promise).toBe("ECONNRESET");
    await nothingLeft();
  });

  test("clients that vanish are gone in the guest", async () => {
    const clients = await stuckReaders(50);
    const inGuest = `netstat -tn | grep -c ':${SERVICE.endless} .*ESTABLISHED'`;
    // Both ends of a connection are the guest's.
    expect(Number(await vms.shell(vm.id, inGuest))).toBe(100);
    for (const client of clients) client.socket.terminate();
    await vms.shell(vm.id, `until [ "$(${inGuest})" = 0 ]; do usleep 50000; done`);
    await nothingLeft();
  });

  test("a server on ::1 alone is found", async () => {
    expect(await askOnce(portOf(vm, "six"), "/six")).toBe("/six");
    await nothingLeft();
  });

  test("what runs in the guest is scheduled as anywhere, whatever the agent is", async () => {
    // Nice value and policy, proc(5): fields 19 and 41.
    const schedulingOf = (process: string) => vms.shell(vm.id, `cut -d' ' -f19,41 /proc/${process}/stat`);
    expect(await schedulingOf("self")).toBe("0 0");
    expect(await schedulingOf("1")).toBe("-20 3");
  });

  test("a port that is taken is named before anything is started", async () => {
    const hostPort = portOf(vm, "http");
    const ports = [{ hostIp: "127.0.0.1", hostPort, guestPort: 80 }];
    const before = vms.engine.listVms().length;
    await expect(vms.start({ ports })).rejects.toMatchObject({
      code: "port_in_use",
      message: expect.stringContaining(`127.0.0.1:${hostPort}`),
    });
    expect(vms.engine.listVms()).toHaveLength(before);
    expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
  });

  test("the end of the VM resets what is open and frees the ports", async () => {
    const ending = await startService();
    const [echo, endless] = await Promise.all([
      TcpClient.open(portOf(ending, "echo")),
      TcpClient.open(portOf(ending, "endless")),
    ]);
    await echo.send("before");
    await echo.has(6);
    await endless.has(MEGABYTE);
    await vms.remove(ending.id);
    for (const client of [echo, endless]) expect(await client.closed.promise).toBe("ECONNRESET");
    await expect(TcpClient.open(portOf(ending, "echo"))).rejects.toThrow();
    expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
  });

  describe("of a daemon that is killed", () => {
    test(
      "break, and lead into the guest again once the next one is there",
      async () => {
        await using daemon = await TestDaemon.start();
        const api = daemon.client.vms;
        const kept = await api.create({ name: "kept", ports: PUBLISHED });
        await daemon.client.files.write("kept", SERVICE_PATH, program, { mode: 0o755 });
        await api.execToEnd("kept", { command: ["sh", "-c", START_SERVICE] });
        const open = await TcpClient.open(portOf(kept, "echo"));
        await open.send("before");
        await open.has(6);
        await daemon.kill();
        await open.ended.promise;
        open.socket.terminate();
        await expect(TcpClient.open(portOf(kept, "http"))).rejects.toThrow();
        await daemon.begin();
        expect((await daemon.client.vms.get("kept")).ports).toEqual(kept.ports);
        expect(await askOnce(portOf(kept, "http"), "/again")).toBe("/again");
        const after = await TcpClient.open(portOf(kept, "echo"));
        await after.send("after");
        await after.has(5);
        expect(after.text).toBe("after");
        after.socket.terminate();
      },
      LIMIT_MS,
    );
  });
});

function portOf(vm: Vm, name: ServicePort): number {
  const port = vm.ports.find((mapping) => mapping.guestPort === SERVICE[name])?.hostPort;
  if (port === undefined) throw new Error(`the VM has no port ${name}`);
  return port;
}

async function* contentOf(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}
