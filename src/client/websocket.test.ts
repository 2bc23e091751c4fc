import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { MayflyError } from "../contract/errors.ts";
import type { ByteChannel } from "../sys/channel.ts";
import { sha1Base64 } from "../sys/hash.ts";
import { WebSocketClient } from "./websocket.ts";
import { encodeFrame, OPCODES, parseFrame } from "./websocket-wire.ts";

/** A channel that keeps what is written. */
class KeepingChannel implements ByteChannel {
  readonly written: Uint8Array[] = [];
  paused = false;
  closed = false;
  write(bytes: Uint8Array): boolean {
    this.written.push(bytes.slice());
    return true;
  }
  drained(): Promise<void> {
    return Promise.resolve();
  }
  pause(): void {
    this.paused = true;
  }
  resume(): void {
    this.paused = false;
  }
  close(): void {
    this.closed = true;
  }
}

/** A client after its handshake, and what it has told. */
function opened(onBinary?: (client: WebSocketClient) => void) {
  const seen: (string | number[] | { closed: string })[] = [];
  const channel = new KeepingChannel();
  const client: WebSocketClient = new WebSocketClient(
    { path: "/x", host: "mayfly", headers: { authorization: "Bearer t" }, mask: true },
    {
      text: (message) => seen.push(message),
      binary: (message) => {
        seen.push([...message]);
        onBinary?.(client);
      },
      closed: (cause) => seen.push({ closed: cause?.message ?? "" }),
    },
  );
  const open = client.open(channel);
  const request = new TextDecoder().decode(channel.written[0]);
  const key = /sec-websocket-key: (\S+)/.exec(request)?.[1] ?? "";
  const accept = sha1Base64(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`);
  const answer = `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`;
  return { client, channel, seen, request, open, answer: new TextEncoder().encode(answer) };
}

/** A frame as a server sends it: without a mask. */
function serverFrame(opcode: number, payload: Uint8Array, final = true): Uint8Array {
  const frame = encodeFrame(opcode, undefined, payload, false);
  const start = frame.length - payload.length;
  const bytes = new Uint8Array([...frame.subarray(0, start - 4), ...payload]);
  bytes[1] = (bytes[1] ?? 0) & 0x7f;
  bytes[0] = (final ? 0x80 : 0) | opcode;
  return bytes;
}

const join = (...parts: Uint8Array[]) => new Uint8Array(parts.flatMap((part) => [...part]));
const utf8 = (text: string) => new TextEncoder().encode(text);

test("the handshake asks for what RFC 6455 wants", async () => {
  const { client, request, open, answer } = opened();
  expect(request.split("\r\n")).toEqual(
    expect.arrayContaining([
      "GET /x HTTP/1.1",
      "host: mayfly",
      "upgrade: websocket",
      "sec-websocket-version: 13",
      "authorization: Bearer t",
    ]),
  );
  client.receive(answer);
  await open;
});

test("messages arrive the same, however the bytes are split", () => {
  const message = fc.oneof(
    fc
      .string({ maxLength: 200 })
      .map((text) => ({ opcode: OPCODES.text as number, payload: utf8(text), expected: text as string | number[] })),
    fc.uint8Array({ maxLength: 70_000 }).map((bytes) => ({
      opcode: OPCODES.binary as number,
      payload: bytes,
      expected: [...bytes] as string | number[],
    })),
  );
  fc.assert(
    fc.property(
      fc.array(message, { maxLength: 5 }),
      fc.infiniteStream(fc.integer({ min: 1, max: 30_000 })),
      (messages, steps) => {
        const { client, seen, answer } = opened();
        const all = join(answer, ...messages.map(({ opcode, payload }) => serverFrame(opcode, payload)));
        for (let at = 0; at < all.length; ) {
          const step = steps.next().value ?? 1;
          // The buffer is used again, as a socket does.
          const chunk = all.slice(at, at + step);
          client.receive(chunk);
          chunk.fill(0xee);
          at += step;
        }
        expect(seen).toEqual(messages.map(({ expected }) => expected));
      },
    ),
    { numRuns: 60 },
  );
});

test("what a client sends is masked, and reads back", () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 70_000 }),
      fc.option(fc.nat(255), { nil: undefined }),
      fc.boolean(),
      (bytes, first, mask) => {
        const frame = encodeFrame(OPCODES.binary, first, bytes, mask);
        expect((frame[1] ?? 0) & 0x80).toBe(0x80);
        const payloadLength = bytes.length + (first === undefined ? 0 : 1);
        const start = frame.length - payloadLength;
        const key = frame.subarray(start - 4, start);
        const payload = frame.slice(start).map((byte, index) => byte ^ (key[index & 3] ?? 0));
        expect([...payload]).toEqual(first === undefined ? [...bytes] : [first, ...bytes]);
        expect(parseFrame(serverFrame(OPCODES.binary, payload))).toMatchObject({ final: true, opcode: 2 });
      },
    ),
    { numRuns: 50 },
  );
});

describe("frames", () => {
  test("fragments are joined, with pings in between", async () => {
    const { client, seen, answer, open, channel } = opened();
    client.receive(answer);
    await open;
    client.receive(serverFrame(OPCODES.text, utf8("he"), false));
    client.receive(serverFrame(OPCODES.ping, utf8("p")));
    client.receive(serverFrame(OPCODES.continuation, utf8("ll"), false));
    client.receive(serverFrame(OPCODES.continuation, utf8("o")));
    expect(seen).toEqual(["hello"]);
    expect((channel.written.at(-1)?.[0] ?? 0) & 15).toBe(OPCODES.pong);
  });

  test("pausing holds back what has arrived already, and the end", () => {
    const { client, seen, answer, channel } = opened((socket) => socket.pause());
    client.receive(
      join(answer, serverFrame(OPCODES.binary, Uint8Array.of(1)), serverFrame(OPCODES.binary, Uint8Array.of(2))),
    );
    expect(seen).toEqual([[1]]);
    expect(channel.paused).toBe(true);
    client.channelClosed(undefined);
    expect(seen).toEqual([[1]]);
    client.resume();
    expect(seen).toEqual([[1], [2]]);
    client.resume();
    expect(seen.at(-1)).toEqual({ closed: expect.stringContaining("broke") });
  });

  test("a close in order is none's fault, another is", () => {
    for (const [code, message] of [
      [1000, ""],
      [1011, "The daemon closed the stream: code 1011"],
    ] as const) {
      const { client, seen, answer, channel } = opened();
      client.receive(join(answer, serverFrame(OPCODES.close, Uint8Array.of(code >> 8, code & 255))));
      client.channelClosed(undefined);
      expect(seen).toEqual([{ closed: message }]);
      expect(channel.closed).toBe(true);
    }
  });

  test.each([
    ["reserved bits", Uint8Array.of(0xc2, 0)],
    ["is masked", Uint8Array.of(0x82, 0x80, 0, 0, 0, 0)],
    ["unknown opcode", Uint8Array.of(0x83, 0)],
    ["continuation came without", Uint8Array.of(0x80, 0)],
    ["at most", Uint8Array.of(0x82, 127, 0, 0, 1, 0, 0, 0, 0, 0)],
    ["inside another", Uint8Array.of(0x01, 0, 0x01, 0)],
  ])("a violation ends it: %s", (words, bytes) => {
    const { client, seen, answer } = opened();
    client.receive(join(answer, bytes));
    expect(seen).toEqual([{ closed: expect.stringContaining(words) }]);
  });

  test("arbitrary bytes never throw", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        const { client, answer } = opened();
        client.receive(join(answer, bytes));
        client.channelClosed(undefined);
      }),
    );
  });
});

describe("a refused handshake", () => {
  test("has the daemon's error", async () => {
    const { client, open } = opened();
    const body = JSON.stringify({ code: "vm_not_found", kind: "not_found", detail: "There is no VM x" });
    client.receive(utf8(`HTTP/1.1 404 Not Found\r\nContent-Length: ${body.length}\r\n\r\n`));
    client.receive(utf8(body));
    expect(await open.catch((error: unknown) => error)).toMatchObject({
      code: "vm_not_found",
      message: "There is no VM x",
    });
  });

  test.each([
    ["another key", "HTTP/1.1 101 OK\r\nsec-websocket-accept: AAAA\r\n\r\n"],
    ["HTTP 502: bad gateway", "HTTP/1.1 502 Bad\r\n\r\nbad gateway"],
    ["does not end", "x".repeat(70_000)],
    ["ended during", "HTTP/1.1 1"],
  ])("is a typed error: %s", async (words, text) => {
    const { client, open } = opened();
    client.receive(utf8(text));
    client.channelClosed(undefined);
    const error = await open.catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(MayflyError);
    expect(error).toMatchObject({ message: expect.stringContaining(words) });
  });
});
