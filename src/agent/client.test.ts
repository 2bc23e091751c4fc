import { describe, expect, test } from "bun:test";
import { connected, FakePeer, pack, rejection, settle, soon } from "../../tests/support/fake-peer.ts";
import { MayflyError } from "../contract/errors.ts";
import { Deadline } from "../sys/deadline.ts";
import { AgentClient } from "./client.ts";
import { FrameType, PREAMBLE } from "./wire.ts";

describe("connecting", () => {
  test("the requests of a clone go out in one write with the hello, before the agent has answered", async () => {
    const peer = new FakePeer();
    const client = new AgentClient(peer.connect, { deadline: soon() });
    const identity = {
      realtimeNs: 1n,
      entropy: new Uint8Array(64),
      machineId: new Uint8Array(16),
      hostname: "vm",
    };
    const done = [
      client.identity(identity, soon()),
      client.container({ fstype: "erofs" }, soon()),
      client.thaw(soon()),
    ];
    const process = client.exec({ argv: ["true"] }, () => undefined, soon());
    await settle();
    expect(peer.writes.length).toBe(1);
    expect(peer.writes[0]?.subarray(0, PREAMBLE.length)).toEqual(Buffer.from(PREAMBLE));
    expect(peer.frames.map((frame) => frame.type)).toEqual([
      FrameType.hello,
      FrameType.identity,
      FrameType.container,
      FrameType.thaw,
      FrameType.exec,
    ]);
    peer.hello({ flags: 1 });
    for (const frame of peer.frames.slice(1, 4)) peer.reply(frame.stream);
    peer.reply(process.object * 4, 0, pack([4, 77]));
    await Promise.all(done);
    expect(await process.pid).toBe(77);
    expect(client.hello?.identityPending).toBe(true);
  });

  test("rests of an earlier connection before the hello are discarded", async () => {
    const peer = new FakePeer();
    const client = new AgentClient(peer.connect, { deadline: soon() });
    await settle();
    peer.send(FrameType.data, 6, Buffer.from("old"), 99);
    peer.raw(PREAMBLE);
    peer.hello();
    expect((await client.ready).buildId).toBe("ab".repeat(16));
  });

  test("an agent that says nothing is not ready", async () => {
    const closed: MayflyError[] = [];
    const peer = new FakePeer();
    const deadline = Deadline.after(5);
    const client = new AgentClient(peer.connect, { deadline, onClosed: (cause) => closed.push(cause) });
    const ping = client.ping(soon());
    expect((await rejection(client.ready)).code).toBe("agent_not_ready");
    expect((await rejection(ping)).code).toBe("agent_not_ready");
    expect(closed.map((cause) => cause.code)).toEqual(["agent_not_ready"]);
    expect(peer.closed).toBe(true);
  });

  test("a failing connection rejects what waits", async () => {
    const client = AgentClient.open("/nonexistent/socket", { deadline: soon() });
    const ping = client.ping(soon());
    expect((await rejection(client.ready)).code).toBe("connection_failed");
    expect((await rejection(ping)).code).toBe("connection_failed");
  });

  test("the other side's end rejects what waits, once", async () => {
    const { peer, client, closed } = await connected();
    const ping = client.ping(soon());
    const process = client.exec({ argv: ["cat"], stdin: true }, () => undefined, soon());
    const write = process.stdin.write(new Uint8Array(1_000_000));
    peer.hangUp();
    peer.hangUp();
    for (const waiting of [ping, process.pid, process.exited, write, client.ping(soon())]) {
      expect((await rejection(waiting)).code).toBe("agent_disconnected");
    }
    expect(closed.length).toBe(1);
  });

  test("our own close is not reported", async () => {
    const { peer, client, closed } = await connected();
    const ping = client.ping(soon());
    client.close();
    expect((await rejection(ping)).code).toBe("agent_disconnected");
    expect(peer.closed).toBe(true);
    expect(closed).toEqual([]);
  });
});

describe("processes", () => {
  test("output is delivered with its offset, kept, acknowledged, and the exit comes after it", async () => {
    const { peer, client } = await connected();
    const got: [number, string, number][] = [];
    const process = client.exec(
      { argv: ["sh", "-c", "x"] },
      (channel, chunk, offset) => void got.push([channel, Buffer.from(chunk).toString(), offset]),
      soon(),
    );
    await settle();
    const id = process.object;
    peer.reply(id * 4, 0, pack([4, 12]));
    peer.data(id * 4 + 2, 0, "hello ");
    peer.data(id * 4 + 3, 0, "oops");
    peer.data(id * 4 + 2, 6, "world");
    peer.offset(FrameType.eof, id * 4 + 2, 11);
    peer.offset(FrameType.eof, id * 4 + 3, 4);
    peer.exit(id, { code: 7, output: 11, error: 4 });
    expect(await process.exited).toEqual({
      code: 7,
      signal: null,
      userTimeUs: 1000,
      systemTimeUs: 2000,
      maxRssBytes: 4096,
      outputEnd: 11,
      errorEnd: 4,
    });
    expect(got).toEqual([
      [2, "hello ", 0],
      [3, "oops", 0],
      [2, "world", 6],
    ]);
    const released = process.release(soon());
    await settle();
    expect(peer.frames.filter((frame) => frame.type === FrameType.ack).map((frame) => frame.stream)).toEqual([]);
    peer.reply(id * 4);
    await released;
  });

  test("a busy consumer is called again with all that came meanwhile, and only kept bytes are acknowledged", async () => {
    const { peer, client } = await connected();
    const first = Promise.withResolvers<void>();
    const got: number[] = [];
    const consumer = (_channel: number, chunk: Uint8Array) => {
      got.push(chunk.length);
      return got.length === 1 ? first.promise : undefined;
    };
    const process = client.exec({ argv: ["yes"] }, consumer, soon());
    await settle();
    const stream = process.object * 4 + 2;
    for (let i = 0; i < 8; i++) peer.data(stream, i * 32768, new Uint8Array(32768));
    await settle();
    expect(got).toEqual([32768]);
    expect(peer.frames.some((frame) => frame.type === FrameType.ack)).toBe(false);
    first.resolve();
    await settle();
    expect(got).toEqual([32768, 7 * 32768]);
    expect(peer.frame(FrameType.ack).payload.readBigUInt64LE()).toBe(262144n);
  });

  test("few kept bytes are acknowledged a little later", async () => {
    const { peer, client } = await connected();
    const process = client.exec({ argv: ["echo"] }, () => undefined, soon());
    await settle();
    const acknowledged = new Promise<void>((resolve) => {
      peer.onFrame = (frame) => {
        if (frame.type === FrameType.ack) resolve();
      };
    });
    peer.data(process.object * 4 + 2, 0, "hi");
    peer.data(process.object * 4 + 3, 0, "ho");
    await acknowledged;
    expect(peer.frames.filter((frame) => frame.type === FrameType.ack).length).toBe(2);
  });

  test("a consumer that throws ends the delivery and rejects `exited`", async () => {
    const { peer, client, closed } = await connected();
    let calls = 0;
    const consumer = () => {
      calls++;
      throw new MayflyError("disk_full", "no room for the log");
    };
    const process = client.exec({ argv: ["yes"] }, consumer, soon());
    await settle();
    peer.data(process.object * 4 + 2, 0, "y\n");
    peer.data(process.object * 4 + 2, 2, "y\n");
    expect((await rejection(process.exited)).code).toBe("disk_full");
    expect(calls).toBe(1);
    expect(closed).toEqual([]);
  });

  test("standard input waits for the window and ends after what was written", async () => {
    const { peer, client } = await connected();
    const process = client.exec({ argv: ["cat"], stdin: true }, () => undefined, soon());
    let written = false;
    const write = process.stdin.write(new Uint8Array(300_000)).then((open) => {
      written = open;
    });
    process.stdin.end();
    await settle();
    const sent = () =>
      peer.frames.filter((frame) => frame.type === FrameType.data).map((frame) => frame.payload.length - 8);
    expect(sent().reduce((sum, length) => sum + length)).toBe(262144);
    expect(written).toBe(false);
    peer.offset(FrameType.ack, process.object * 4 + 1, 100_000);
    await write;
    await settle();
    expect(written).toBe(true);
    expect(sent().reduce((sum, length) => sum + length)).toBe(300_000);
    expect(peer.frame(FrameType.eof).payload.readBigUInt64LE()).toBe(300_000n);
    expect(peer.frame(FrameType.eof).stream).toBe(process.object * 4 + 1);
  });

  test("writes to a process that has ended say so", async () => {
    const { peer, client } = await connected();
    const process = client.exec({ argv: ["true"], stdin: true }, () => undefined, soon());
    const write = process.stdin.write(new Uint8Array(1_000_000));
    await settle();
    peer.exit(process.object, {});
    expect(await write).toBe(false);
    expect(await process.stdin.write(new Uint8Array(1))).toBe(false);
  });

  const failures = [
    [2, "command_not_found"],
    [13, "command_not_executable"],
    [8, "command_not_executable"],
    [11, "limit_reached"],
    [16, "agent_request_failed"],
  ] as const;
  for (const [errno, code] of failures) {
    test(`errno ${errno} of EXEC is ${code}`, async () => {
      const { peer, client } = await connected();
      const process = client.exec({ argv: ["thing"] }, () => undefined, soon());
      await settle();
      peer.reply(process.object * 4, errno);
      const error = await rejection(process.pid);
      expect(error.code).toBe(code);
      expect(error.message).toContain("thing");
      expect(error.details.errno).toBe(errno);
      expect(await rejection(process.exited)).toBe(error);
    });
  }

  test("a start that is not answered in time is released", async () => {
    const { peer, client, closed } = await connected();
    const process = client.exec({ argv: ["slow"] }, () => undefined, Deadline.after(5));
    expect((await rejection(process.pid)).code).toBe("deadline_exceeded");
    await settle();
    expect(peer.frame(FrameType.release).stream).toBe(process.object * 4);
    peer.reply(process.object * 4, 0, pack([4, 5]));
    peer.data(process.object * 4 + 2, 0, "late");
    peer.reply(process.object * 4);
    await settle();
    expect(closed).toEqual([]);
  });

  test("a release before the end rejects `exited`, and late output is ignored", async () => {
    const { peer, client, closed } = await connected();
    const process = client.exec({ argv: ["yes"] }, () => undefined, soon());
    await settle();
    peer.reply(process.object * 4, 0, pack([4, 5]));
    const released = process.release(soon());
    expect((await rejection(process.exited)).code).toBe("cancelled");
    peer.data(process.object * 4 + 2, 0, "y");
    await settle();
    peer.reply(process.object * 4);
    await released;
    expect(closed).toEqual([]);
  });

  test("answers on one stream belong to its requests in order", async () => {
    const { peer, client } = await connected();
    const process = client.exec({ argv: ["vi"], terminal: { rows: 24, columns: 80 } }, () => undefined, soon());
    const resized = process.resize(50, 132, soon());
    const signalled = process.signal(15, true, soon());
    await settle();
    const stream = process.object * 4;
    peer.reply(stream, 0, pack([4, 9]));
    peer.reply(stream);
    peer.reply(stream, 3);
    expect(await process.pid).toBe(9);
    await resized;
    expect((await rejection(signalled)).message).toContain("ESRCH");
    expect(peer.frame(FrameType.resize).payload).toEqual(pack([2, 50], [2, 132]));
    expect(peer.frame(FrameType.signal).payload).toEqual(pack([4, 15], [4, 1]));
  });
});
