/** What a guest may not do: each case ends the connection with one typed error and rejects everything that waits. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  connected,
  dataPayload,
  type FakeHello,
  FakePeer,
  pack,
  rejection,
  settle,
  soon,
} from "../../tests/support/fake-peer.ts";
import { AgentClient } from "./client.ts";
import { FrameType } from "./wire.ts";

async function withProcess() {
  const { peer, client, closed } = await connected();
  const process = client.exec({ argv: ["cat"], stdin: true }, () => undefined, soon());
  await settle();
  peer.reply(process.object * 4, 0, pack([4, 1]));
  await process.pid;
  return { peer, client, closed, process, stream: process.object * 4 };
}

type Case = (peer: FakePeer, stream: number) => void;

const violations: Record<string, Case> = {
  "a frame type of the host's": (peer, stream) => peer.send(FrameType.exec, stream),
  "an unknown frame type": (peer, stream) => peer.send(200, stream),
  "a second hello": (peer) => peer.hello(),
  "a second hello without preamble": (peer) => peer.send(FrameType.helloAck, 0),
  "an answer to nothing": (peer, stream) => peer.reply(stream + 400),
  "an answer without errno": (peer, stream) => peer.send(FrameType.reply, stream, Buffer.alloc(2)),
  "DATA without an offset": (peer, stream) => peer.send(FrameType.data, stream + 2, Buffer.alloc(7)),
  "DATA on channel 0": (peer, stream) => peer.data(stream, 0, "x"),
  "DATA on channel 1": (peer, stream) => peer.data(stream + 1, 0, "x"),
  "DATA with a gap": (peer, stream) => peer.data(stream + 2, 1, "x"),
  "DATA at an absurd offset": (peer, stream) => peer.send(FrameType.data, stream + 2, pack([8, -1n], Buffer.from("x"))),
  "DATA after its end": (peer, stream) => {
    peer.offset(FrameType.eof, stream + 2, 0);
    peer.data(stream + 2, 0, "x");
  },
  "an end that is not where the bytes stopped": (peer, stream) => peer.offset(FrameType.eof, stream + 2, 1),
  "an end on channel 1": (peer, stream) => peer.offset(FrameType.eof, stream + 1, 0),
  "an end of a strange size": (peer, stream) => peer.send(FrameType.eof, stream + 2, Buffer.alloc(9)),
  "an acknowledgement of more than was sent": (peer, stream) => peer.offset(FrameType.ack, stream + 1, 1),
  "an acknowledgement of output": (peer, stream) => peer.offset(FrameType.ack, stream + 2, 0),
  "an exit whose lengths differ from what came": (peer, stream) => peer.exit(stream / 4, { output: 5 }),
  "a second exit": (peer, stream) => {
    peer.exit(stream / 4, {});
    peer.exit(stream / 4, {});
  },
  "an exit that is too short": (peer, stream) => peer.send(FrameType.exit, stream, Buffer.alloc(12)),
  "an exit that is too long": (peer, stream) => peer.send(FrameType.exit, stream, Buffer.alloc(65)),
  "an exit code out of range": (peer, stream) => peer.exit(stream / 4, { code: 256 }),
  "an exit signal out of range": (peer, stream) => peer.exit(stream / 4, { signal: 65 }),
  "an exit on another channel": (peer, stream) => peer.send(FrameType.exit, stream + 1, Buffer.alloc(64)),
  "bytes that are no frame": (peer) => peer.raw(Buffer.from("GET / HTTP/1.1\r\n")),
};

describe("a violation ends the connection", () => {
  for (const [name, act] of Object.entries(violations)) {
    test(name, async () => {
      const { peer, client, closed, process, stream } = await withProcess();
      const ping = client.ping(soon());
      await settle();
      act(peer, stream);
      const cause = await rejection(ping);
      expect(cause.code).toBe("agent_protocol_violation");
      expect(closed).toEqual([cause]);
      expect(peer.closed).toBe(true);
      expect(client.cause).toBe(cause);
      if (!name.startsWith("a second exit")) expect(await rejection(process.exited)).toBe(cause);
      expect(await rejection(client.ping(soon()))).toBe(cause);
      peer.raw(Buffer.from("more"));
      peer.hangUp();
      expect(closed.length).toBe(1);
    });
  }

  test("a negative errno", async () => {
    const { peer, client, closed } = await connected();
    const ping = client.ping(soon());
    await settle();
    peer.reply(peer.frame(FrameType.ping).stream, -2);
    expect((await rejection(ping)).code).toBe("agent_protocol_violation");
    expect(closed.length).toBe(1);
  });

  test("a result of the wrong size", async () => {
    const { peer, client, closed } = await connected();
    const sync = client.sync(soon());
    await settle();
    peer.reply(peer.frame(FrameType.sync).stream, 0, Buffer.from("surprise"));
    expect((await rejection(sync)).message).toContain("8 bytes more than expected");
    expect(closed.length).toBe(1);
  });

  test("names in a directory that lead out of it", async () => {
    for (const name of ["..", ".", "", "a/b", "/etc/passwd"]) {
      const { peer, client } = await connected();
      const next = client.list("/tmp", soon()).next();
      await settle();
      const stat = pack([4, 0o100644], [4, 0], [4, 0], [4, 1], [8, 0], [8, 0], [8, 0], [8, 0], "");
      peer.reply(peer.frame(FrameType.fileList).stream, 0, pack([8, 0], stat, name));
      expect((await rejection(next)).code).toBe("agent_protocol_violation");
    }
  });
});

describe("a hello outside of the limits", () => {
  const hellos: Record<string, FakeHello> = {
    "another version": { version: 2 },
    "unknown flags": { flags: 4 },
    "another payload limit": { maxPayload: 1 << 20 },
    "a window too large": { window: 1 << 30 },
    "a window of nothing": { window: 0 },
    "too many objects allowed": { maxObjects: 1 << 20 },
    "another number of connections": { maxConnections: 4097 },
    "an absurd buffer": { maxBuffered: 2 ** 32 - 1 },
    "more objects than allowed": { maxObjects: 1, objects: [{ object: 1 }, { object: 2 }] },
    "an object twice": { objects: [{ object: 1 }, { object: 1 }] },
    "object 0": { objects: [{ object: 0 }] },
    "an object of no kind": { objects: [{ object: 1, kind: 4 }] },
  };
  for (const [name, hello] of Object.entries(hellos)) {
    test(name, async () => {
      const peer = new FakePeer();
      const client = new AgentClient(peer.connect, { deadline: soon() });
      await settle();
      peer.hello(hello);
      expect((await rejection(client.ready)).code).toBe("agent_protocol_violation");
    });
  }
});

describe("what a guest cannot make the host keep", () => {
  test("more than the window of one stream", async () => {
    const { peer, client, closed } = await connected();
    const process = client.exec({ argv: ["yes"] }, () => new Promise(() => undefined), soon());
    await settle();
    const stream = process.object * 4 + 2;
    const chunk = new Uint8Array(32768);
    for (let i = 0; i < 8; i++) peer.data(stream, i * chunk.length, chunk);
    expect(closed).toEqual([]);
    peer.data(stream, 8 * chunk.length, Buffer.from("x"));
    expect(closed.map((cause) => cause.message)).toEqual([
      "The guest agent broke the protocol: 262145 bytes of output are unacknowledged, the window is 262144",
    ]);
  });

  test("frames of objects that nobody here knows", async () => {
    const { peer, closed } = await connected({ objects: [{ object: 9 }] });
    for (let i = 0; i < 100; i++) peer.send(FrameType.data, 9 * 4 + 2, dataPayload(i * 1000, new Uint8Array(1000)));
    peer.exit(9, { output: 100_000 });
    peer.offset(FrameType.ack, 77 * 4 + 1, 5);
    expect(closed).toEqual([]);
  });
});

test("whatever frames a guest sends, there is a result or a typed error, and never a crash", async () => {
  const channel = fc.integer({ min: 0, max: 3 });
  const frame = fc.record({
    type: fc.constantFrom(1, 2, 3, 4, 5, 6, 7, 8),
    own: fc.boolean(),
    channel,
    payload: fc.oneof(
      fc.uint8Array({ maxLength: 100 }).map((bytes) => Buffer.from(bytes)),
      fc.nat(20).map((offset) => pack([8, offset])),
      fc.tuple(fc.nat(3), fc.uint8Array({ maxLength: 9 })).map(([offset, bytes]) => dataPayload(offset, bytes)),
      fc.constant(Buffer.alloc(64)),
    ),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(frame, { maxLength: 6 }), async (frames) => {
      const { peer, client, closed, process, stream } = await withProcess();
      for (const { type, own, channel: number, payload } of frames) {
        peer.send(type, (own ? stream : 4000) + number, payload);
      }
      expect(closed.map((cause) => cause.code)).toEqual(closed.map(() => "agent_protocol_violation"));
      expect(closed.length).toBeLessThanOrEqual(1);
      client.close();
      await process.exited.catch(() => undefined);
    }),
    { numRuns: 100 },
  );
});
