import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { IncomingStream, OutgoingStream, payloadLength } from "./stream.ts";
import { MAX_DATA, PREAMBLE, WINDOW } from "./wire.ts";

/** An outgoing stream and what it sent. */
function outgoing(window = WINDOW) {
  const sent: Buffer[] = [];
  const offsets: number[] = [];
  let end: number | undefined;
  const stream = new OutgoingStream(
    {
      data: (bytes, offset) => {
        offsets.push(offset);
        sent.push(Buffer.from(bytes));
      },
      eof: (offset) => {
        end = offset;
      },
    },
    window,
  );
  return { stream, sent, offsets, all: () => Buffer.concat(sent), end: () => end };
}

/** An incoming stream, what it delivered, and a way to hold the consumer. */
function incoming(options: { offset?: number; window?: number } = {}) {
  const got: { text: string; offset: number }[] = [];
  const failures: unknown[] = [];
  let hold: Promise<void> | undefined;
  const stream = new IncomingStream(
    {
      deliver: (chunk, offset) => {
        got.push({ text: Buffer.from(chunk).toString(), offset });
        return hold;
      },
      progress: () => undefined,
      failed: (error) => failures.push(error),
    },
    options.offset ?? 0,
    options.window ?? WINDOW,
  );
  return {
    stream,
    got,
    failures,
    hold: (promise: Promise<void> | undefined) => {
      hold = promise;
    },
  };
}

describe("splitting", () => {
  test("a payload never holds the preamble, and nothing is lost", () => {
    const part = fc.oneof(
      fc.constant(Buffer.from(PREAMBLE)),
      fc.nat(15).map((n) => Buffer.from(PREAMBLE.subarray(0, n))),
      fc.uint8Array({ maxLength: 50 }).map((bytes) => Buffer.from(bytes)),
    );
    fc.assert(
      fc.property(fc.array(part, { maxLength: 20 }), fc.array(fc.nat(400), { maxLength: 5 }), (parts, acks) => {
        const bytes = Buffer.concat(parts);
        const { stream, sent, all } = outgoing(100);
        void stream.write(bytes);
        for (const ack of acks) stream.ack(Math.max(stream.kept, Math.min(ack, stream.offset)));
        while (stream.offset < bytes.length) stream.ack(stream.offset);
        expect(all()).toEqual(bytes);
        for (const piece of sent) expect(piece.includes(PREAMBLE)).toBe(false);
      }),
    );
  });

  test("a large write goes out in full payloads", () => {
    expect(payloadLength(Buffer.alloc(200_000), 0, WINDOW)).toBe(MAX_DATA);
    expect(payloadLength(Buffer.alloc(200_000), 199_000, WINDOW)).toBe(1000);
    expect(payloadLength(Buffer.from(PREAMBLE), 0, WINDOW)).toBe(8);
    expect(payloadLength(Buffer.concat([PREAMBLE, PREAMBLE]), 8, WINDOW)).toBe(16);
  });
});

describe("sending", () => {
  test("never more than the window is unacknowledged, in order, whatever the acknowledgements", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.uint8Array({ maxLength: 700 }), { maxLength: 8 }),
        fc.array(fc.nat(900), { maxLength: 30 }),
        async (writes, steps) => {
          const { stream, offsets, all, end } = outgoing(512);
          const done = writes.map((bytes) => stream.write(bytes));
          stream.end();
          const check = () => expect(stream.offset - stream.kept).toBeLessThanOrEqual(512);
          for (const step of steps) {
            stream.ack(Math.min(stream.offset, stream.kept + step));
            check();
          }
          const total = writes.reduce((sum, bytes) => sum + bytes.length, 0);
          while (stream.offset < total) {
            stream.ack(stream.offset);
            check();
          }
          expect(await Promise.all(done)).toEqual(writes.map(() => true));
          expect(all()).toEqual(Buffer.concat(writes));
          expect(offsets).toEqual([...offsets].sort((a, b) => a - b));
          expect(end()).toBe(total);
        },
      ),
      { numRuns: 50 },
    );
  });

  test("a resumed stream waits, then goes on from what the agent has kept", async () => {
    const { stream, offsets } = outgoing(0);
    const write = stream.write(Buffer.from("abc"));
    expect(offsets).toEqual([]);
    stream.resume(70, WINDOW);
    expect(await write).toBe(true);
    expect(offsets).toEqual([70]);
  });

  test("acknowledging backwards or beyond what was sent is a violation", () => {
    const { stream } = outgoing();
    void stream.write(Buffer.alloc(10));
    stream.ack(5);
    expect(() => stream.ack(4)).toThrow("broke the protocol");
    expect(() => stream.ack(11)).toThrow("broke the protocol");
  });

  test("a write after the end is refused", async () => {
    const { stream } = outgoing();
    stream.end();
    expect(await stream.write(Buffer.from("x"))).toBe(false);
  });
});

describe("receiving", () => {
  test("gaps, repeats, bytes after the end and a wrong end are violations", () => {
    const { stream } = incoming({ offset: 5 });
    expect(() => stream.data(Buffer.from("x"), 0)).toThrow("broke the protocol");
    stream.data(Buffer.from("abc"), 5);
    expect(() => stream.data(Buffer.from("abc"), 5)).toThrow("continues at offset 5, 8 was to come");
    expect(() => stream.eof(9)).toThrow("ends at 9, but 8 bytes came");
    stream.eof(8);
    expect(() => stream.data(Buffer.from("d"), 8)).toThrow("goes on after its end");
  });

  test("more than the window unacknowledged is a violation, however small the frames", () => {
    const { stream, hold } = incoming({ window: 1000 });
    hold(new Promise(() => undefined));
    for (let i = 0; i < 1000; i++) stream.data(Buffer.from("."), i);
    expect(() => stream.data(Buffer.from("."), 1000)).toThrow("1001 bytes of output are unacknowledged");
  });

  test("what is kept but not acknowledged counts for the window too", () => {
    const { stream } = incoming({ window: 10 });
    stream.data(Buffer.from("0123456789"), 0);
    expect(() => stream.data(Buffer.from("x"), 10)).toThrow("the window is 10");
    expect(stream.acknowledge()).toBe(10);
    stream.data(Buffer.from("x"), 10);
  });

  test("a busy consumer gets what came meanwhile in one chunk, in order", async () => {
    const { stream, got, hold } = incoming();
    const { promise, resolve } = Promise.withResolvers<void>();
    hold(promise);
    for (const [offset, text] of ["ab", "cd", "ef", "g"].entries()) stream.data(Buffer.from(text), offset * 2);
    stream.eof(7);
    expect(got).toEqual([{ text: "ab", offset: 0 }]);
    expect([stream.kept, stream.finished]).toEqual([0, false]);
    hold(undefined);
    resolve();
    await stream.idle();
    expect(got.slice(1)).toEqual([{ text: "cdefg", offset: 2 }]);
    expect([stream.kept, stream.finished, stream.unacknowledged]).toEqual([7, true, 7]);
  });

  test("after a stop the call under way still counts as kept, the rest is dropped", async () => {
    const { stream, got, hold } = incoming();
    const { promise, resolve } = Promise.withResolvers<void>();
    hold(promise);
    stream.data(Buffer.from("ab"), 0);
    stream.data(Buffer.from("cd"), 2);
    stream.stop();
    resolve();
    await stream.idle();
    expect(stream.kept).toBe(2);
    expect(got.length).toBe(1);
    expect(stream.unacknowledged).toBe(0);
  });

  test("a consumer's rejection is reported once and nothing is kept", async () => {
    const { stream, failures, hold } = incoming();
    hold(Promise.reject(new Error("no")));
    stream.data(Buffer.from("ab"), 0);
    stream.data(Buffer.from("cd"), 2);
    await stream.idle();
    expect(failures.length).toBe(1);
    expect(stream.kept).toBe(0);
  });
});
