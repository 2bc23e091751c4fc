import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { encodeFrame, helloPayload } from "../../tests/support/fake-peer.ts";
import { MayflyError } from "../contract/errors.ts";
import { FrameDecoder } from "./decoder.ts";
import { FrameType, MAX_PAYLOAD, PREAMBLE } from "./wire.ts";

const EPOCH = 0x1234abcd;
const OPENING = Buffer.concat([PREAMBLE, encodeFrame(FrameType.helloAck, EPOCH, 0, helloPayload({}))]);

interface Frame {
  type: number;
  stream: number;
  payload: Buffer;
}

/** Decodes chunks, copying each frame as a consumer has to. */
function decode(chunks: readonly Uint8Array[]): Frame[] {
  const frames: Frame[] = [];
  const decoder = new FrameDecoder(EPOCH, (type, stream, payload) => {
    frames.push({ type, stream, payload: Buffer.from(payload) });
  });
  for (const chunk of chunks) decoder.push(chunk);
  return frames;
}

/** Cuts bytes at the given places (any numbers). */
function cut(bytes: Buffer, places: readonly number[]): Buffer[] {
  const at = [...new Set(places.map((place) => place % (bytes.length + 1)))].sort((a, b) => a - b);
  return [0, ...at].map((from, i) => bytes.subarray(from, at[i] ?? bytes.length));
}

const frame = fc.record({
  type: fc.integer({ min: 3, max: 7 }),
  stream: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
  payload: fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
});
const places = fc.array(fc.nat(20_000), { maxLength: 40 });

describe("framing", () => {
  test("does not depend on the boundaries of chunks, nor on what came before the hello", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.array(frame, { maxLength: 20 }), places, (rest, frames, at) => {
        const body = frames.map(({ type, stream, payload }) => encodeFrame(type, EPOCH, stream, payload));
        const got = decode(cut(Buffer.concat([rest, OPENING, ...body]), at));
        expect(got.slice(1)).toEqual(frames);
        expect(got[0]?.type).toBe(FrameType.helloAck);
      }),
    );
  });

  test("byte by byte and with the largest payload", () => {
    const payload = Buffer.alloc(MAX_PAYLOAD, 5);
    const bytes = Buffer.concat([OPENING, encodeFrame(3, EPOCH, 6, payload), encodeFrame(4, EPOCH, 5, payload)]);
    const single = decode(Array.from(bytes, (_, i) => bytes.subarray(i, i + 1)));
    expect(single.map(({ type, payload: { length } }) => [type, length])).toEqual([
      [2, helloPayload({}).length],
      [3, MAX_PAYLOAD],
      [4, MAX_PAYLOAD],
    ]);
    expect(single[2]?.payload.equals(payload)).toBe(true);
  });

  test("any bytes after the hello give frames or a protocol violation", () => {
    const almost = fc.array(
      fc.oneof(
        fc.uint8Array({ maxLength: 64 }).map((bytes) => Buffer.from(bytes)),
        frame.map(({ type, stream, payload }) => encodeFrame(type, EPOCH, stream, payload)),
        frame.map(({ type, stream, payload }) => encodeFrame(type, 1, stream, payload)),
      ),
      { maxLength: 10 },
    );
    fc.assert(
      fc.property(almost, places, (parts, at) => {
        try {
          decode([OPENING, ...cut(Buffer.concat(parts), at)]);
        } catch (error) {
          expect(error).toBeInstanceOf(MayflyError);
          if (error instanceof MayflyError) expect(error.code).toBe("agent_protocol_violation");
        }
      }),
    );
  });
});

describe("synchronising", () => {
  test("nothing before the hello of the own epoch counts, not even whole frames and other hellos", () => {
    const other = Buffer.concat([PREAMBLE, encodeFrame(FrameType.helloAck, EPOCH + 1, 0, helloPayload({}))]);
    const junk = Buffer.concat([encodeFrame(3, EPOCH, 2, Buffer.from("x")), other, PREAMBLE.subarray(0, 9), PREAMBLE]);
    const got = decode([junk, encodeFrame(3, EPOCH, 2, Buffer.from("y")), PREAMBLE, OPENING]);
    expect(got.map(({ type }) => type)).toEqual([FrameType.helloAck]);
  });

  test("frames of other epochs are dropped", () => {
    const got = decode([
      OPENING,
      encodeFrame(99, EPOCH - 1, 2, Buffer.from("x")),
      encodeFrame(3, EPOCH, 2, Buffer.alloc(9)),
    ]);
    expect(got.map(({ type }) => type)).toEqual([FrameType.helloAck, FrameType.data]);
  });

  test("what waits for the hello does not grow", () => {
    const decoder = new FrameDecoder(EPOCH, () => undefined);
    const before = process.memoryUsage().rss;
    const chunk = new Uint8Array(65536);
    for (let i = 0; i < 1000; i++) decoder.push(chunk);
    expect(process.memoryUsage().rss - before).toBeLessThan(40e6);
  });

  test("no frame comes after stop, also when it is called by a frame", () => {
    let count = 0;
    const decoder = new FrameDecoder(EPOCH, () => {
      count++;
      decoder.stop();
    });
    decoder.push(Buffer.concat([OPENING, OPENING.subarray(PREAMBLE.length)]));
    expect(count).toBe(1);
  });
});

describe("a bad header is a violation", () => {
  const bad = {
    magic: Buffer.from("no frame at all!"),
    length: (() => {
      const header = encodeFrame(3, EPOCH, 2, Buffer.alloc(0));
      header.writeUInt32LE(MAX_PAYLOAD + 1, 12);
      return header;
    })(),
    flags: (() => {
      const header = encodeFrame(3, EPOCH, 2, Buffer.alloc(0));
      header[2] = 1;
      return header;
    })(),
  };
  for (const [name, bytes] of Object.entries(bad)) {
    test(name, () => {
      expect(() => decode([OPENING, bytes])).toThrow("The guest agent broke the protocol");
      expect(() => decode([OPENING, bytes.subarray(0, 3), bytes.subarray(3)])).toThrow("broke the protocol");
    });
  }
});
