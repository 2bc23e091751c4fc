/** What a guest may not do with TCP connections: each case ends the connection to its agent, and every one of them is told. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { connected, type FakePeer, pack, settle } from "../../tests/support/fake-peer.ts";
import type { AgentClient } from "./client.ts";
import type { GuestTcp } from "./tcp.ts";
import { CONNECTION_FREE, FrameType, MAX_BUFFERED, MAX_CONNECTIONS, WINDOW } from "./wire.ts";

function silent(client: AgentClient): GuestTcp {
  return client.connect({ port: 80 }, { data: () => undefined, end: () => undefined, writable: () => undefined });
}

async function withConnection() {
  const { peer, client, closed } = await connected();
  const tcp = silent(client);
  const stream = tcp.id * 4;
  await settle();
  peer.reply(stream);
  await tcp.connected;
  return { peer, client, closed, tcp, stream };
}

type Case = (peer: FakePeer, stream: number, tcp: GuestTcp) => void | Promise<void>;

const violations: Record<string, Case> = {
  "an answer to nothing": (peer, stream) => peer.reply(stream),
  "an answer of a connection that there is not": (peer, stream) => peer.reply(stream + 8),
  "a negative errno": async (peer, stream, tcp) => {
    tcp.reset();
    await settle();
    peer.reply(stream, -1);
  },
  "an answer that is too long": async (peer, stream, tcp) => {
    tcp.reset();
    await settle();
    peer.reply(stream, 0, Buffer.from("x"));
  },
  "DATA of a connection that there is not": (peer, stream) => peer.data(stream + 8 + 2, 0, "x"),
  "DATA of another one in the same place": (peer, stream) => peer.data(stream + MAX_CONNECTIONS * 4 + 2, 0, "x"),
  "DATA without an offset": (peer, stream) => peer.send(FrameType.data, stream + 2, Buffer.alloc(7)),
  "DATA on channel 3": (peer, stream) => peer.data(stream + 3, 0, "x"),
  "DATA on channel 1": (peer, stream) => peer.data(stream + 1, 0, "x"),
  "DATA with a gap": (peer, stream) => peer.data(stream + 2, 1, "x"),
  "DATA again": (peer, stream) => {
    peer.data(stream + 2, 0, "x");
    peer.data(stream + 2, 0, "x");
  },
  "DATA after its end": (peer, stream) => {
    peer.offset(FrameType.eof, stream + 2, 0);
    peer.data(stream + 2, 0, "x");
  },
  "DATA beyond the window": (peer, stream) => {
    for (let at = 0; at <= WINDOW; at += 65528) peer.data(stream + 2, at, Buffer.alloc(65528));
  },
  "an end that is not where the bytes stopped": (peer, stream) => peer.offset(FrameType.eof, stream + 2, 1),
  "a second end": (peer, stream) => {
    peer.offset(FrameType.eof, stream + 2, 0);
    peer.offset(FrameType.eof, stream + 2, 0);
  },
  "an end of a strange size": (peer, stream) => peer.send(FrameType.eof, stream + 2, Buffer.alloc(9)),
  "an acknowledgement of more than was sent": (peer, stream) => peer.offset(FrameType.ack, stream + 1, 1),
  "an acknowledgement that goes back": async (peer, stream, tcp) => {
    tcp.write(Buffer.from("some"));
    await settle();
    peer.offset(FrameType.ack, stream + 1, 4);
    peer.offset(FrameType.ack, stream + 1, 3);
  },
  "an acknowledgement of output": (peer, stream) => peer.offset(FrameType.ack, stream + 2, 0),
  "an exit before the directions have ended": (peer, stream) => peer.exit(stream / 4, {}),
  "an exit whose length differs from what came": (peer, stream) => peer.exit(stream / 4, { errno: 104, output: 5 }),
  "an exit with errors on channel 3": (peer, stream) => peer.exit(stream / 4, { errno: 104, error: 1 }),
  "a second exit": (peer, stream) => {
    peer.exit(stream / 4, { errno: 104 });
    peer.exit(stream / 4, { errno: 104 });
  },
  "an exit that is too short": (peer, stream) => peer.send(FrameType.exit, stream, Buffer.alloc(12)),
  "an exit on another channel": (peer, stream) => peer.send(FrameType.exit, stream + 1, Buffer.alloc(64)),
  "a frame type of the host's": (peer, stream) => peer.send(FrameType.connect, stream),
};

describe("a violation ends the connection to the agent", () => {
  for (const [name, act] of Object.entries(violations)) {
    test(name, async () => {
      const { peer, client, closed, tcp, stream } = await withConnection();
      const other = silent(client);
      await act(peer, stream, tcp);
      expect(closed.map(({ code }) => code)).toEqual(["agent_protocol_violation"]);
      expect(peer.closed).toBe(true);
      expect(await other.closed).toMatchObject({ reason: "lost", error: { code: "agent_protocol_violation" } });
      expect(client.tcpConnections).toBe(0);
      const end = await tcp.closed;
      if (!/exit|answer|errno/.test(name)) expect(end.reason).toBe("lost");
      tcp.write(Buffer.from("late"));
      tcp.consumed(1);
      tcp.end();
      tcp.reset();
    });
  }

  for (const [name, act] of Object.entries<Case>({
    data: (peer, stream) => peer.data(stream + 2, 0, "x"),
    "an end": (peer, stream) => peer.offset(FrameType.eof, stream + 2, 0),
    "an exit": (peer, stream) => peer.exit(stream / 4, { errno: 104 }),
    "an acknowledgement": (peer, stream) => peer.offset(FrameType.ack, stream + 1, 0),
  })) {
    test(`${name} before the connection stands`, async () => {
      const { peer, client, closed } = await connected();
      const tcp = silent(client);
      await settle();
      act(peer, tcp.id * 4, tcp);
      expect(closed.map(({ code }) => code)).toEqual(["agent_protocol_violation"]);
    });
  }

  test("more on the way than all connections together may have", async () => {
    const { peer, client, closed } = await connected();
    const sent: number[] = [];
    for (let i = 0; i <= MAX_BUFFERED / (WINDOW - CONNECTION_FREE) && closed.length === 0; i++) {
      const tcp = silent(client);
      await settle();
      peer.reply(tcp.id * 4);
      let at = 0;
      for (; at < WINDOW - 65528 && closed.length === 0; at += 65528) {
        peer.data(tcp.id * 4 + 2, at, Buffer.alloc(65528));
      }
      if (closed.length === 0) peer.data(tcp.id * 4 + 2, at, Buffer.alloc(WINDOW - at));
      sent.push(WINDOW - CONNECTION_FREE);
    }
    expect(closed.map(({ code }) => code)).toEqual(["agent_protocol_violation"]);
    expect(sent.reduce((sum, part) => sum + part, 0)).toBeGreaterThan(MAX_BUFFERED);
  });
});

describe("what is no violation", () => {
  test("frames that were on their way when the connection was dropped", async () => {
    const { peer, client, closed, tcp, stream } = await withConnection();
    tcp.write(Buffer.from("four"));
    tcp.reset();
    peer.data(stream + 2, 0, "x");
    peer.offset(FrameType.ack, stream + 1, 4);
    peer.offset(FrameType.eof, stream + 2, 1);
    peer.exit(stream / 4, { errno: 104, output: 1 });
    peer.reply(stream);
    expect(closed).toEqual([]);
    expect(client.tcpConnections).toBe(0);
  });
});

test("whatever frames of connections a guest sends, there is an end or a typed error, and never a crash", async () => {
  const frame = fc.record({
    type: fc.integer({ min: 3, max: 8 }),
    place: fc.integer({ min: 0, max: 3 }),
    channel: fc.integer({ min: 0, max: 3 }),
    offset: fc.integer({ min: 0, max: 4 }),
    errno: fc.integer({ min: 0, max: 2 }),
    act: fc.constantFrom("none", "write", "end", "reset"),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(frame, { maxLength: 30 }), async (frames) => {
      const { peer, client, closed } = await connected();
      const connections = [0, 1, 2].map(() => silent(client));
      await settle();
      for (const { type, place, channel, offset, errno, act } of frames) {
        const tcp = connections[place] ?? connections[0];
        if (act === "write") tcp?.write(Buffer.from("abc"));
        if (act === "end") tcp?.end();
        if (act === "reset") tcp?.reset();
        const stream = ((connections[0]?.id ?? 0) + place) * 4 + channel;
        if (type === FrameType.reply) peer.reply(stream, errno);
        else if (type === FrameType.exit) peer.exit(stream >>> 2, { errno, output: offset });
        else peer.send(type, stream, pack([8, offset], Buffer.alloc(type === FrameType.data ? errno : 0)));
      }
      for (const { code } of closed) expect(code).toBe("agent_protocol_violation");
      client.close();
      for (const tcp of connections) expect((await tcp.closed).reason).toBeString();
    }),
    { numRuns: 200 },
  );
});
