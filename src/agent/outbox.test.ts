import { describe, expect, test } from "bun:test";
import { encodeFrame, pack, settle } from "../../tests/support/fake-peer.ts";
import type { ByteChannel } from "../sys/channel.ts";
import { Outbox, PADDING_BYTES } from "./outbox.ts";
import { FrameType, HEADER_BYTES } from "./wire.ts";

const EPOCH = 77;
const GREETING = Buffer.from("greeting");

/** A channel that records its writes. */
function recorder(): { channel: ByteChannel; writes: Buffer[] } {
  const writes: Buffer[] = [];
  const channel: ByteChannel = {
    write: (bytes) => {
      writes.push(Buffer.from(bytes));
      return true;
    },
    drained: () => Promise.resolve(),
    pause: () => undefined,
    resume: () => undefined,
    close: () => undefined,
  };
  return { channel, writes };
}

describe("the outbox", () => {
  test("writes the greeting and all that was collected at once, whatever its sizes", () => {
    const outbox = new Outbox(EPOCH, () => undefined);
    const expected: Buffer[] = [GREETING];
    for (let i = 0; i < 200; i++) {
      outbox.offset(FrameType.ack, i, i * 1000);
      outbox.data(i, Buffer.alloc(i, i), 2 ** 40 + i);
      outbox.frame(FrameType.ping, i * 4, Buffer.from("abc"));
      expected.push(
        encodeFrame(FrameType.ack, EPOCH, i, pack([8, i * 1000])),
        encodeFrame(FrameType.data, EPOCH, i * 4 + 1, pack([8, 2 ** 40 + i], Buffer.alloc(i, i))),
        encodeFrame(FrameType.ping, EPOCH, i * 4, Buffer.from("abc")),
      );
    }
    const { channel, writes } = recorder();
    outbox.open(channel, GREETING);
    expect(writes.length).toBe(1);
    expect(writes[0]?.equals(Buffer.concat(expected))).toBe(true);
  });

  test("has padding that no connection's agent takes, in whole pages", async () => {
    const { channel, writes } = recorder();
    const outbox = new Outbox(EPOCH, () => undefined);
    outbox.open(channel, GREETING);
    outbox.padding();
    outbox.frame(FrameType.ping, 4, Buffer.from("abc"));
    await settle();
    const padding = encodeFrame(0, 0, 0, Buffer.alloc(PADDING_BYTES - HEADER_BYTES));
    expect(padding.length % 4096).toBe(0);
    const ping = encodeFrame(FrameType.ping, EPOCH, 4, Buffer.from("abc"));
    expect(Buffer.concat(writes.slice(1)).equals(Buffer.concat([padding, ping]))).toBe(true);
  });

  test("writes once for each turn, with what is added just before", async () => {
    const { channel, writes } = recorder();
    const outbox: Outbox = new Outbox(EPOCH, () => outbox.offset(FrameType.ack, 6, 5));
    outbox.open(channel, GREETING);
    outbox.frame(FrameType.sync, 4, Buffer.alloc(0));
    outbox.frame(FrameType.thaw, 8, Buffer.alloc(0));
    await settle();
    const frames = [
      encodeFrame(FrameType.sync, EPOCH, 4, Buffer.alloc(0)),
      encodeFrame(FrameType.thaw, EPOCH, 8, Buffer.alloc(0)),
      encodeFrame(FrameType.ack, EPOCH, 6, pack([8, 5])),
    ];
    expect(writes.slice(1)).toEqual([Buffer.concat(frames)]);
  });

  test("does not wait for the turn's end with much, and writes nothing once closed", async () => {
    const { channel, writes } = recorder();
    const outbox = new Outbox(EPOCH, () => undefined);
    outbox.open(channel, GREETING);
    for (let i = 0; i < 5; i++) outbox.data(1, Buffer.alloc(65_000), i * 65_000);
    expect(writes.length).toBe(2);
    outbox.close();
    await settle();
    expect(writes.length).toBe(2);
  });
});

describe("an outbox whose next frame is waited for", () => {
  test("tells so once, and what is sent then goes first, even from the buffer that the frame was encoded in", async () => {
    const { channel, writes } = recorder();
    const outbox = new Outbox(EPOCH, () => undefined);
    outbox.open(channel, GREETING);
    await settle();
    const encoded = Buffer.from("exec");
    let told = 0;
    outbox.beforeNext(() => {
      told += 1;
      encoded.write("time");
      outbox.frame(FrameType.time, 8, encoded);
    });
    expect(outbox.empty).toBe(true);
    encoded.write("exec");
    outbox.frame(FrameType.exec, 4, encoded);
    outbox.data(3, Buffer.from("more"), 7);
    expect(outbox.empty).toBe(false);
    await settle();
    expect(told).toBe(1);
    expect(Buffer.concat(writes.slice(1))).toEqual(
      Buffer.concat([
        encodeFrame(FrameType.time, EPOCH, 8, Buffer.from("time")),
        encodeFrame(FrameType.exec, EPOCH, 4, Buffer.from("exec")),
        encodeFrame(FrameType.data, EPOCH, 13, pack([8, 7], Buffer.from("more"))),
      ]),
    );
    expect(outbox.empty).toBe(true);
  });

  test("does not when it is taken back, or the connection has ended", async () => {
    const { channel } = recorder();
    const outbox = new Outbox(EPOCH, () => undefined);
    outbox.open(channel, GREETING);
    const wanted = () => {
      throw new Error("nobody waits");
    };
    outbox.beforeNext(wanted);
    outbox.beforeNext(undefined);
    outbox.offset(FrameType.ack, 6, 5);
    outbox.beforeNext(wanted);
    outbox.close();
    outbox.offset(FrameType.ack, 6, 5);
    await settle();
    expect(outbox.empty).toBe(false);
  });
});
