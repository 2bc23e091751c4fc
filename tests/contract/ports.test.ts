/** Ports of the host that lead into a VM, over real QEMU: busybox' httpd and nc in the base guest. */
import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import type { Vm } from "../../src/contract/api.ts";
import { Deadline } from "../../src/sys/deadline.ts";
import { TestEngine } from "../support/engine.ts";
import { describeVms } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";
import { TcpClient } from "../support/tcp-client.ts";

/** Ports inside the guest, and what listens there. */
const GUEST = { http: 8080, echo: 9000, nobody: 9001, reset: 9002, endless: 9003, silent: 9004, six: 9005 } as const;

const SERVERS = `
mkdir -p /tmp/www && echo hello from the guest >/tmp/www/index.html
httpd -f -p ${GUEST.http} -h /tmp/www &
nc -ll -p ${GUEST.echo} -e cat &
nc -ll -p ${GUEST.reset} -e true &
nc -ll -p ${GUEST.endless} -e yes &
nc -ll -p ${GUEST.silent} -e sleep 1000 &
httpd -f -p [::1]:${GUEST.six} -h /tmp/www &
wait
`;

const MEGABYTE = 2 ** 20;
/** Each connection to nc is a process of the guest's. */
const LARGE = { memoryMiB: 512, vcpus: 1 };

describeVms("forwarded ports", () => {
  let vms: TestEngine;
  let vm: Vm;
  /** Descriptors of the guest's agent when nobody is connected. */
  let agentDescriptors: string;

  beforeAll(async () => {
    vms = await TestEngine.open({ templates: [LARGE] });
    vm = await startWithServers(vms);
    agentDescriptors = await vms.shell(vm.id, "ls /proc/1/fd | wc -l");
  }, 60_000);
  afterAll(() => vms[Symbol.asyncDispose]());
  beforeEach(() => vms.markDescriptors());

  const hostPort = (name: keyof typeof GUEST) => portOf(vm, GUEST[name]);
  const connect = (name: keyof typeof GUEST) => TcpClient.open(hostPort(name));

  /**
   * Connections, each of which its server has; what is endless is read no further. nc keeps only one connection that waits to be accepted,
   * so they are opened in turn.
   */
  async function several(name: "endless" | "echo", count: number): Promise<TcpClient[]> {
    const clients: TcpClient[] = [];
    for (let i = 0; i < count; i++) {
      const client = await connect(name);
      if (name === "echo") await client.send("here");
      await client.has(4);
      if (name === "endless") client.socket.pause();
      clients.push(client);
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

  test("a thousand requests, one after another", async () => {
    for (let i = 0; i < 1000; i++) expect(await get(hostPort("http"))).toBe("hello from the guest\n");
    await nothingLeft();
  }, 240_000);

  test("five hundred connections at once", async () => {
    const clients = await several("echo", 500);
    await Promise.all(clients.map((client, i) => client.send(` number ${i}`)));
    await Promise.all(clients.map((client, i) => client.has(`here number ${i}`.length)));
    expect(clients.map(({ text }) => text)).toEqual(clients.map((_, i) => `here number ${i}`));
    for (const client of clients) client.finish();
    await Promise.all(clients.map(({ ended }) => ended.promise));
    await nothingLeft();
  }, 120_000);

  test("each direction ends by itself", async () => {
    const client = await connect("echo");
    await client.send("said before the end");
    client.finish();
    await client.ended.promise;
    expect(client.text).toBe("said before the end");
    expect(await client.closed.promise).toBeUndefined();
    await nothingLeft();
  }, 60_000);

  test("64 MiB each way come as they went", async () => {
    const client = await connect("echo");
    const [sent, came] = [new Bun.CryptoHasher("sha256"), new Bun.CryptoHasher("sha256")];
    client.onData = (chunk) => came.update(chunk);
    const part = new Uint8Array(MEGABYTE);
    for (let i = 0; i < 64; i++) {
      for (let at = 0; at < part.length; at += 65_536) crypto.getRandomValues(part.subarray(at, at + 65_536));
      sent.update(part);
      await client.send(part);
    }
    client.finish();
    await client.ended.promise;
    expect(client.receivedBytes).toBe(64 * MEGABYTE);
    expect(came.digest("hex")).toBe(sent.digest("hex"));
    await nothingLeft();
  }, 240_000);

  test("readers that stop do not stop others", async () => {
    const stuck = await several("endless", 40);
    const fast = await connect("endless");
    const before = stuck.reduce((sum, client) => sum + client.receivedBytes, 0);
    await fast.has(16 * MEGABYTE);
    const after = stuck.reduce((sum, client) => sum + client.receivedBytes, 0);
    expect(after).toBe(before);
    const talk = await connect("echo");
    await talk.send("still quick");
    await talk.has("still quick".length);
    for (const client of [...stuck, fast, talk]) client.socket.terminate();
    await nothingLeft();
  }, 120_000);

  test("a reader that goes on gets everything", async () => {
    const client = await connect("endless");
    client.socket.pause();
    const other = await connect("endless");
    await other.has(4 * MEGABYTE);
    client.socket.resume();
    await client.has(4 * MEGABYTE);
    expect(client.received.every((chunk) => /^[y\n]*$/.test(chunk.toString()))).toBe(true);
    for (const each of [client, other]) each.socket.terminate();
    await nothingLeft();
  }, 60_000);

  test("writers that nobody reads do not stop others", async () => {
    const clients = await Promise.all(Array.from({ length: 20 }, () => connect("silent")));
    let stuck = 0;
    for (const client of clients) {
      client.send(new Uint8Array(32 * MEGABYTE)).catch(() => {
        stuck += 1;
      });
    }
    const talk = await connect("echo");
    const [bytes, count] = [Buffer.alloc(65_536, "talk "), 64];
    for (let i = 1; i <= count; i++) {
      await talk.send(bytes);
      await talk.has(i * bytes.length);
    }
    expect(stuck).toBe(0);
    for (const client of [...clients, talk]) client.socket.terminate();
    await nothingLeft();
  }, 120_000);

  test("what is refused in the guest is reset here", async () => {
    const client = await connect("nobody");
    expect(await client.closed.promise).toBe("ECONNRESET");
    await nothingLeft();
  }, 60_000);

  test("what is reset in the guest is reset here", async () => {
    const client = await connect("reset");
    await client.send("nobody reads this").catch(() => undefined);
    await client.ended.promise;
    await client.send("nor this").catch(() => undefined);
    expect(await client.closed.promise).toMatch(/^(ECONNRESET|EPIPE)$/);
    await nothingLeft();
  }, 60_000);

  test("a client that vanishes is gone in the guest", async () => {
    const clients = await several("endless", 50);
    expect(Number(await vms.shell(vm.id, "pidof yes | wc -w"))).toBe(50);
    for (const client of clients) client.socket.terminate();
    await vms.shell(vm.id, "while pidof yes >/dev/null; do sleep 0.1; done");
    await nothingLeft();
  }, 60_000);

  test("a server on ::1 alone is found", async () => {
    expect(await get(hostPort("six"))).toBe("hello from the guest\n");
    await nothingLeft();
  }, 60_000);

  test("a port that is taken is named, and nothing of the VM is left", async () => {
    const ports = [{ hostIp: "127.0.0.1", hostPort: hostPort("http"), guestPort: 80 }];
    expect(vms.start({ ports })).rejects.toMatchObject({
      code: "port_in_use",
      message: expect.stringContaining(`127.0.0.1:${hostPort("http")}`),
    });
    expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
  }, 60_000);

  test("the end of the VM resets what is open and frees the port", async () => {
    const ending = await startWithServers(vms);
    const clients = await Promise.all([GUEST.echo, GUEST.endless].map((port) => TcpClient.open(portOf(ending, port))));
    const [echo, endless] = clients;
    await echo?.send("before");
    await echo?.has(6);
    await endless?.has(MEGABYTE);
    await vms.remove(ending.id);
    for (const client of clients) expect(await client.closed.promise).toBe("ECONNRESET");
    const port = portOf(ending, GUEST.echo);
    expect(TcpClient.open(port)).rejects.toThrow();
    expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
  }, 60_000);
});

/** A VM without a main process in which the servers run, once all of them listen. */
async function startWithServers(vms: TestEngine): Promise<Vm> {
  const ports = Object.values(GUEST).map((guestPort) => ({ hostIp: "127.0.0.1", hostPort: 0, guestPort }));
  const vm = await vms.start({ ports, memoryBytes: LARGE.memoryMiB * MEGABYTE });
  const count = Object.keys(GUEST).length - 1;
  await vms.shell(
    vm.id,
    `(${SERVERS}) </dev/null >/dev/null 2>&1 & while [ $(netstat -ltn | grep -c LISTEN) -lt ${count} ]; do sleep 0.05; done`,
  );
  return vm;
}

function portOf(vm: Vm, guestPort: number): number {
  const port = vm.ports.find((mapping) => mapping.guestPort === guestPort)?.hostPort;
  if (port === undefined) throw new Error(`the VM has no port ${guestPort}`);
  return port;
}

async function get(port: number): Promise<string> {
  const response = await fetch(`http://127.0.0.1:${port}/`, { keepalive: false });
  return response.text();
}
