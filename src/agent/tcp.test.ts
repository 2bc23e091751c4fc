import { describe, expect, test } from "bun:test";
import { connected, type FakePeer, pack, rejection, settle } from "../../tests/support/fake-peer.ts";
import type { AgentClient } from "./client.ts";
import type { GuestTcp, TcpEvents } from "./tcp.ts";
import { CONNECTION_FREE, FIRST_CONNECTION_ID, FrameType, MAX_BUFFERED, MAX_CONNECTIONS, WINDOW } from "./wire.ts";

/** Keeps what a connection tells; consumes at once unless told otherwise. */
class Recorder implements TcpEvents {
  readonly told: string[] = [];
  received = 0;
  connection: GuestTcp | undefined;
  consumes = true;

  data(chunk: Uint8Array): void {
    this.received += chunk.length;
    this.told.push(`data ${Buffer.from(chunk.subarray(0, 8))}`);
    if (this.consumes) this.connection?.consumed(chunk.length);
  }
  end(): void {
    this.told.push("end");
  }
  writable(): void {
    this.told.push("writable");
  }
}

function open(client: AgentClient, port = 80): { tcp: GuestTcp; recorder: Recorder; control: number } {
  const recorder = new Recorder();
  const tcp = client.connect({ port }, recorder);
  recorder.connection = tcp;
  return { tcp, recorder, control: tcp.id * 4 };
}

async function opened(client: AgentClient, peer: FakePeer): Promise<ReturnType<typeof open>> {
  const made = open(client);
  await settle();
  peer.reply(made.control);
  await made.tcp.connected;
  return made;
}

function framesOf(peer: FakePeer, type: number) {
  return peer.frames.filter((frame) => frame.type === type);
}

/** Lets what is delayed a little go out. */
const due = () => Bun.sleep(25);

describe("opening a connection", () => {
  test("sends CONNECT and the first bytes in one write", async () => {
    const { peer, client } = await connected();
    const before = peer.writes.length;
    const { tcp } = open(client, 8080);
    expect(tcp.write(Buffer.from("GET / HTTP/1.0\r\n\r\n"))).toBe(18);
    await settle();
    expect(peer.writes.length).toBe(before + 1);
    expect(peer.frame(FrameType.connect).payload).toEqual(pack([2, 8080], [2, 0], ""));
    expect(peer.frame(FrameType.connect).stream).toBe(tcp.id * 4);
    expect(peer.frame(FrameType.data).payload.subarray(8).toString()).toBe("GET / HTTP/1.0\r\n\r\n");
  });

  test("takes the lowest place, and another id each time", async () => {
    const { peer, client } = await connected();
    const first = await opened(client, peer);
    const second = await opened(client, peer);
    expect([first.tcp.id, second.tcp.id]).toEqual([FIRST_CONNECTION_ID, FIRST_CONNECTION_ID + 1]);
    first.tcp.reset();
    await settle();
    expect(client.tcpConnections).toBe(2);
    peer.reply(first.control);
    expect(client.tcpConnections).toBe(1);
    expect(open(client).tcp.id).toBe(FIRST_CONNECTION_ID + MAX_CONNECTIONS);
  });

  test("fails when there is no place", async () => {
    const { client } = await connected();
    for (let i = 0; i < MAX_CONNECTIONS; i++) open(client);
    expect(() => open(client, 81)).toThrow("Cannot connect to port 81 in the VM: there are 4096 connections already");
  });

  test("is told when the guest refuses, and its place is free at once", async () => {
    const { peer, client } = await connected();
    const { tcp, control } = open(client);
    await settle();
    peer.reply(control, 111);
    const error = await rejection(tcp.connected);
    expect([error.code, error.message]).toEqual([
      "connection_failed",
      "Cannot connect to port 80 in the VM: ECONNREFUSED",
    ]);
    expect((await tcp.closed).reason).toBe("refused");
    expect(client.tcpConnections).toBe(0);
    await due();
    expect(framesOf(peer, FrameType.release)).toEqual([]);
  });

  test("given up before its answer, both answers are waited for", async () => {
    const { peer, client } = await connected();
    const { tcp, control } = open(client);
    tcp.reset();
    await settle();
    expect((await rejection(tcp.connected)).code).toBe("cancelled");
    peer.reply(control, 125);
    expect(client.tcpConnections).toBe(1);
    peer.reply(control, 0);
    expect(client.tcpConnections).toBe(0);
    expect((await tcp.closed).reason).toBe("dropped");
  });

  test("is impossible once the connection to the agent is gone", async () => {
    const { peer, client } = await connected();
    const { tcp } = await opened(client, peer);
    peer.hangUp();
    expect(await tcp.closed).toMatchObject({ reason: "lost", error: { code: "agent_disconnected" } });
    expect(() => open(client)).toThrow("The connection to the guest agent is gone");
  });
});

describe("the ends of a connection", () => {
  test("a request and its answer take one release, which goes with the end", async () => {
    const { peer, client } = await connected();
    const { tcp, recorder, control } = await opened(client, peer);
    tcp.write(Buffer.from("ping"));
    await settle();
    peer.offset(FrameType.ack, control + 1, 4);
    peer.data(control + 2, 0, "pong");
    peer.offset(FrameType.eof, control + 2, 4);
    expect(recorder.told).toEqual(["data pong", "end"]);
    const writes = peer.writes.length;
    tcp.end();
    expect(await tcp.closed).toEqual({ reason: "finished" });
    await due();
    expect(peer.writes.length).toBe(writes + 1);
    expect(peer.frames.slice(-2).map((frame) => frame.type)).toEqual([FrameType.eof, FrameType.release]);
    peer.reply(control);
    expect(client.tcpConnections).toBe(0);
  });

  test("input that the guest has not taken yet is waited for", async () => {
    const { peer, client } = await connected();
    const { tcp, control } = await opened(client, peer);
    tcp.write(Buffer.from("late"));
    peer.offset(FrameType.eof, control + 2, 0);
    tcp.end();
    await due();
    expect(framesOf(peer, FrameType.release)).toEqual([]);
    expect(peer.frame(FrameType.eof).payload).toEqual(pack([8, 4]));
    peer.exit(tcp.id, {});
    expect(await tcp.closed).toEqual({ reason: "finished" });
    await due();
    expect(framesOf(peer, FrameType.release).length).toBe(1);
    expect(framesOf(peer, FrameType.eof).length).toBe(1);
  });

  test("each direction ends by itself", async () => {
    const { peer, client } = await connected();
    const { tcp, recorder, control } = await opened(client, peer);
    tcp.end();
    expect(tcp.write(Buffer.from("more"))).toBe(0);
    peer.data(control + 2, 0, "goes on");
    peer.offset(FrameType.eof, control + 2, 7);
    peer.exit(tcp.id, { output: 7 });
    expect(recorder.told).toEqual(["data goes on", "end"]);
    expect(await tcp.closed).toEqual({ reason: "finished" });
  });

  test("a reset of the guest's comes after what it sent before", async () => {
    const { peer, client } = await connected();
    const { tcp, recorder, control } = await opened(client, peer);
    peer.data(control + 2, 0, "half");
    peer.exit(tcp.id, { errno: 104, output: 4 });
    expect(recorder.told).toEqual(["data half"]);
    expect(await tcp.closed).toMatchObject({
      reason: "reset",
      error: { message: "The connection to port 80 in the VM broke: ECONNRESET", details: { errno: 104 } },
    });
    await due();
    expect(framesOf(peer, FrameType.release).length).toBe(1);
  });

  test("an owner that throws loses its own connection", async () => {
    const { peer, client, closed } = await connected();
    const tcp = client.connect(
      { port: 80 },
      {
        data: () => {
          throw new Error("no use for it");
        },
        end: () => undefined,
        writable: () => undefined,
      },
    );
    const other = await opened(client, peer);
    peer.reply(tcp.id * 4);
    peer.data(tcp.id * 4 + 2, 0, "x");
    expect(await tcp.closed).toMatchObject({ reason: "lost", error: { code: "internal" } });
    peer.data(tcp.id * 4 + 2, 1, "on its way");
    peer.data(other.control + 2, 0, "y");
    expect(other.recorder.told).toEqual(["data y"]);
    expect(closed).toEqual([]);
  });
});

describe("flow control", () => {
  test("no more than the window is sent, and it goes on as the guest takes it", async () => {
    const { peer, client } = await connected();
    const { tcp, recorder, control } = await opened(client, peer);
    const bytes = new Uint8Array(WINDOW + 100_000);
    expect(tcp.write(bytes)).toBe(WINDOW);
    await settle();
    peer.offset(FrameType.ack, control + 1, 50_000);
    expect(recorder.told).toEqual(["writable"]);
    expect(tcp.write(bytes.subarray(0, 100_000))).toBe(50_000);
    peer.offset(FrameType.ack, control + 1, WINDOW + 50_000);
    expect(recorder.told).toEqual(["writable", "writable"]);
    peer.offset(FrameType.ack, control + 1, WINDOW + 50_000);
    expect(recorder.told.length).toBe(2);
  });

  test("stuck ones leave room for others, within the bound of all", async () => {
    const { peer, client } = await connected();
    let sum = 0;
    let above = 0;
    for (let i = 0; i < 300; i++) {
      const { tcp } = await opened(client, peer);
      const taken = tcp.write(new Uint8Array(WINDOW));
      expect(taken).toBeGreaterThanOrEqual(CONNECTION_FREE);
      sum += taken;
      above += Math.max(0, taken - CONNECTION_FREE);
    }
    expect(above).toBeLessThanOrEqual(MAX_BUFFERED);
    expect(sum).toBeGreaterThan(MAX_BUFFERED);
    const { tcp } = await opened(client, peer);
    expect(tcp.write(new Uint8Array(WINDOW))).toBeGreaterThanOrEqual(CONNECTION_FREE);
  });

  test("what was passed on is acknowledged: much of it at once, little of it a little later", async () => {
    const { peer, client } = await connected();
    const { tcp, recorder, control } = await opened(client, peer);
    recorder.consumes = false;
    for (let at = 0; at < 200_000; at += 50_000) peer.data(control + 2, at, Buffer.alloc(50_000));
    await due();
    expect(framesOf(peer, FrameType.ack)).toEqual([]);
    tcp.consumed(150_000);
    await settle();
    expect(framesOf(peer, FrameType.ack).map((frame) => frame.payload)).toEqual([pack([8, 150_000])]);
    tcp.consumed(10);
    await settle();
    expect(framesOf(peer, FrameType.ack).length).toBe(1);
    await due();
    expect(framesOf(peer, FrameType.ack).at(-1)?.payload).toEqual(pack([8, 150_010]));
  });

  test("the preamble is never sent whole", async () => {
    const { PREAMBLE } = await import("./wire.ts");
    const { peer, client } = await connected();
    const { tcp } = await opened(client, peer);
    const bytes = Buffer.concat([Buffer.alloc(10), PREAMBLE, Buffer.alloc(10), PREAMBLE]);
    expect(tcp.write(bytes)).toBe(bytes.length);
    await settle();
    const data = framesOf(peer, FrameType.data).map((frame) => frame.payload.subarray(8));
    expect(Buffer.concat(data)).toEqual(bytes);
    expect(data.every((part) => part.indexOf(PREAMBLE) < 0)).toBe(true);
  });
});
