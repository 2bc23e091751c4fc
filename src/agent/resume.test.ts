/** Going on with processes that an earlier connection started. */
import { describe, expect, test } from "bun:test";
import { connected, FakePeer, pack, rejection, settle, soon } from "../../tests/support/fake-peer.ts";
import type { MayflyError } from "../contract/errors.ts";
import { AgentClient } from "./client.ts";
import { FrameType } from "./wire.ts";

const POINT = { object: 5, pid: 42, output: 10, error: 3 };

function opened(point = POINT) {
  const peer = new FakePeer();
  const closed: MayflyError[] = [];
  const client = new AgentClient(peer.connect, { deadline: soon(), onClosed: (cause) => closed.push(cause) });
  const got: [number, string, number][] = [];
  const process = client.attachProcess(point, (channel, chunk, offset) => {
    got.push([channel, Buffer.from(chunk).toString(), offset]);
  });
  return { peer, client, closed, process, got };
}

describe("attaching", () => {
  test("the hello names what is kept, output goes on there, input where the agent says", async () => {
    const { peer, process, got } = opened();
    const write = process.stdin.write(Buffer.from("more"));
    await settle();
    expect(peer.frame(FrameType.hello).payload).toEqual(
      pack([2, 1], [2, 0], [4, 2], [4, 22], [8, 10], [4, 23], [8, 3]),
    );
    peer.hello({ objects: [{ object: 5, input: 100, output: 12, error: 3 }] });
    expect(await process.pid).toBe(42);
    expect(await write).toBe(true);
    await settle();
    expect(peer.frame(FrameType.data).payload).toEqual(pack([8, 100], Buffer.from("more")));
    expect(process.stdin.offset).toBe(104);
    peer.data(22, 10, "ok");
    peer.exit(5, { code: 3, output: 12, error: 3 });
    expect((await process.exited).code).toBe(3);
    expect(got).toEqual([[2, "ok", 10]]);
  });

  test("output in the same chunk as the hello is not lost", async () => {
    const { peer, process, got } = opened();
    await settle();
    const chunks: Buffer[] = [];
    const { raw } = peer;
    peer.raw = (bytes) => chunks.push(Buffer.from(bytes));
    peer.hello({ objects: [{ object: 5, output: 11, error: 3, ended: true }] });
    peer.data(22, 10, "!");
    peer.offset(FrameType.eof, 22, 11);
    peer.exit(5, { signal: 9, code: -1, output: 11, error: 3 });
    raw.call(peer, Buffer.concat(chunks));
    expect(await process.exited).toMatchObject({ code: null, signal: 9 });
    expect(got).toEqual([[2, "!", 10]]);
  });

  test("an object that the agent does not know is an error of that process alone", async () => {
    const { peer, client, process, closed } = opened();
    await settle();
    peer.hello({ objects: [{ object: 6 }] });
    const error = await rejection(process.exited);
    expect(error.message).toBe("Cannot go on with object 5 of the guest agent: it does not know it (any more)");
    expect(await rejection(process.pid)).toBe(error);
    await client.ready;
    expect(closed).toEqual([]);
  });

  test("output kept beyond what the agent produced is an error of that process alone", async () => {
    const { peer, process, closed } = opened();
    await settle();
    peer.hello({ objects: [{ object: 5, output: 9, error: 3 }] });
    expect((await rejection(process.exited)).message).toContain("10 bytes of its output were kept, it has produced 9");
    expect(closed).toEqual([]);
  });

  test("output that was acknowledged before and is asked for again is an error of that process alone", async () => {
    const { peer, process, closed, got } = opened();
    await settle();
    peer.hello({ objects: [{ object: 5, output: 20, error: 3 }] });
    peer.data(22, 15, "later");
    peer.data(22, 20, "ignored");
    expect((await rejection(process.exited)).message).toContain("its output from 10 to 15 is gone");
    expect(got).toEqual([]);
    expect(closed).toEqual([]);
  });

  test("once the hello is sent it is too late", async () => {
    const { client } = await connected();
    expect(() => client.attachProcess(POINT, () => undefined)).toThrow("the connection has begun without naming it");
  });

  test("twice is refused", () => {
    const { client } = opened();
    expect(() => client.attachProcess(POINT, () => undefined)).toThrow("Cannot go on with object 5 twice");
    client.close();
  });
});

describe("leaving", () => {
  test("after a disconnect `settled` says what is kept once the consumer is done", async () => {
    const { peer, client } = await connected();
    const { promise, resolve } = Promise.withResolvers<void>();
    const process = client.exec({ argv: ["yes"] }, () => promise, soon());
    await settle();
    peer.data(process.object * 4 + 2, 0, "abc");
    peer.data(process.object * 4 + 2, 3, "def");
    peer.hangUp();
    expect((await rejection(process.exited)).code).toBe("agent_disconnected");
    resolve();
    expect(await process.settled()).toEqual({ output: 3, error: 0 });
  });

  test("objects that nobody goes on with can be released", async () => {
    const { peer, client } = await connected({ objects: [{ object: 6, output: 100 }] });
    const released = client.releaseObject(6, soon());
    await settle();
    expect(peer.frame(FrameType.release).stream).toBe(24);
    peer.reply(24);
    await released;
  });
});
