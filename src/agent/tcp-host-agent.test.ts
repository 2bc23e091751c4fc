/** TCP connections through the real agent, run as a process of this host: its loopback device is ours. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { Socket } from "bun";
import { soon } from "../../tests/support/fake-peer.ts";
import { HostAgent, hostAgentProgram } from "../../tests/support/host-agent.ts";
import type { AgentClient } from "./client.ts";
import type { GuestTcp, TcpEnd } from "./tcp.ts";

const skipped = hostAgentProgram === undefined ? " (skipped: no musl-gcc)" : "";
const suite = skipped === "" ? describe : describe.skip;

/** A server that does with each connection what it is told. */
function serve(socket: Parameters<typeof Bun.listen<undefined>>[0]["socket"]) {
  return Bun.listen<undefined>({ hostname: "127.0.0.1", port: 0, allowHalfOpen: true, data: undefined, socket });
}

/** Sends everything, takes everything. */
async function exchange(client: AgentClient, port: number, bytes: Buffer): Promise<{ got: Buffer; end: TcpEnd }> {
  const parts: Buffer[] = [];
  let at = 0;
  const push = () => {
    at += tcp.write(bytes.subarray(at));
    if (at === bytes.length) tcp.end();
  };
  const tcp: GuestTcp = client.connect(
    { port },
    {
      data: (chunk) => {
        parts.push(Buffer.from(chunk));
        tcp.consumed(chunk.length);
      },
      end: () => undefined,
      writable: () => push(),
    },
  );
  push();
  const end = await soon().race(tcp.closed, "the end of the connection");
  return { got: Buffer.concat(parts), end };
}

/** Echoes with back-pressure, and ends when the other side does. */
function echo() {
  const pending = new Map<Socket<undefined>, { chunks: Uint8Array[]; ended: boolean }>();
  const flush = (socket: Socket<undefined>) => {
    const state = pending.get(socket);
    for (let head = state?.chunks[0]; head !== undefined; head = state?.chunks[0]) {
      const written = Math.max(0, socket.write(head));
      if (written < head.length) {
        state?.chunks.splice(0, 1, head.subarray(written));
        return;
      }
      state?.chunks.shift();
    }
    if (state?.ended === true) socket.end();
    else socket.resume();
  };
  return serve({
    open: (socket) => void pending.set(socket, { chunks: [], ended: false }),
    data: (socket, chunk) => {
      pending.get(socket)?.chunks.push(new Uint8Array(chunk));
      socket.pause();
      flush(socket);
    },
    drain: flush,
    end: (socket) => {
      const state = pending.get(socket);
      if (state !== undefined) state.ended = true;
      flush(socket);
    },
    close: (socket) => void pending.delete(socket),
  });
}

suite(`TCP through the agent${skipped}`, () => {
  let agent: HostAgent;
  let client: AgentClient;
  beforeAll(async () => {
    agent = await HostAgent.start();
    client = agent.open();
    await client.ready;
  });
  afterAll(() => agent[Symbol.asyncDispose]());

  /** Nothing is left once the agent has answered all that came before. */
  async function nothingLeft(): Promise<void> {
    for (let i = 0; i < 100 && client.tcpConnections > 0; i++) await client.ping(soon());
    expect(client.tcpConnections).toBe(0);
  }

  test("bytes come back as they went, in both directions at once", async () => {
    using server = echo();
    const bytes = Buffer.alloc(3_000_000);
    for (let i = 0; i < bytes.length; i += 4) bytes.writeUInt32LE((i * 2654435761) >>> 0, i);
    const { got, end } = await exchange(client, server.port, bytes);
    expect(end).toEqual({ reason: "finished" });
    expect(Bun.hash(got)).toBe(Bun.hash(bytes));
    await nothingLeft();
  });

  test("hundreds at once", async () => {
    using server = echo();
    const results = await Promise.all(
      Array.from({ length: 400 }, (_, i) => exchange(client, server.port, Buffer.from(`number ${i} `.repeat(50)))),
    );
    for (const [i, { got }] of results.entries()) expect(got.toString()).toBe(`number ${i} `.repeat(50));
    await nothingLeft();
  });

  test("a port that nobody listens on", async () => {
    const { port } = serve({ data: () => undefined });
    const closedServer = serve({ data: () => undefined });
    closedServer.stop(true);
    expect(port).toBeGreaterThan(0);
    const { end } = await exchange(client, closedServer.port, Buffer.from("x"));
    expect(end).toMatchObject({ reason: "refused", error: { code: "connection_failed", details: { errno: 111 } } });
    await nothingLeft();
  });

  test("a server that resets, after what it has sent", async () => {
    using server = serve({
      data: (socket) => {
        socket.write("last words");
        setTimeout(() => socket.terminate(), 20);
      },
    });
    const parts: string[] = [];
    const tcp: GuestTcp = client.connect(
      { port: server.port, address: "127.0.0.1" },
      {
        data: (chunk) => void parts.push(Buffer.from(chunk).toString()),
        end: () => undefined,
        writable: () => undefined,
      },
    );
    tcp.write(Buffer.from("go"));
    expect(await tcp.closed).toMatchObject({ reason: "reset", error: { details: { errno: 104 } } });
    expect(parts).toEqual(["last words"]);
    await nothingLeft();
  });

  test("a reset of ours reaches the server", async () => {
    const closed = Promise.withResolvers<Error | undefined>();
    using server = serve({
      data: () => tcp.reset(),
      close: (_socket, error) => closed.resolve(error),
      error: (_socket, error) => closed.resolve(error),
    });
    const tcp = client.connect(
      { port: server.port },
      { data: () => undefined, end: () => undefined, writable: () => undefined },
    );
    tcp.write(Buffer.from("hello"));
    expect(await closed.promise).toMatchObject({ code: "ECONNRESET" });
    expect((await tcp.closed).reason).toBe("dropped");
    await nothingLeft();
  });

  test("a reader that takes nothing stops its own connection alone", async () => {
    using server = serve({
      open: (socket) => void socket.write(new Uint8Array(4_000_000)),
      data: () => undefined,
    });
    using echoes = echo();
    let held = 0;
    const stuck = Array.from({ length: 60 }, () =>
      client.connect(
        { port: server.port },
        {
          data: (chunk) => {
            held += chunk.length;
          },
          end: () => undefined,
          writable: () => undefined,
        },
      ),
    );
    for (const tcp of stuck) await tcp.connected;
    const bytes = Buffer.alloc(1_000_000, "moving ");
    expect((await exchange(client, echoes.port, bytes)).got.equals(bytes)).toBe(true);
    expect(held).toBeGreaterThan(1_000_000);
    expect(held).toBeLessThan(8 * 1024 * 1024 + 60 * 4096);
    for (const tcp of stuck) tcp.reset();
    await nothingLeft();
  });

  test("a new connection to the agent finds none of them", async () => {
    const ended = Promise.withResolvers<void>();
    const opened = Promise.withResolvers<void>();
    using server = serve({ open: () => opened.resolve(), data: () => undefined, close: () => ended.resolve() });
    const before = agent.open();
    const tcp = before.connect(
      { port: server.port },
      { data: () => undefined, end: () => undefined, writable: () => undefined },
    );
    client.close();
    await opened.promise;
    before.close();
    client = agent.open();
    await client.ready;
    await soon().race(ended.promise, "the server's end");
    expect((await tcp.closed).reason).toBe("lost");
    expect(client.hello?.objects).toEqual([]);
  });
});
