/** For tests: an agent in memory that answers as it is told to, and can break every rule. */

import { AgentClient } from "../../src/agent/client.ts";
import type { Connector } from "../../src/agent/connection.ts";
import {
  FrameType,
  HEADER_BYTES,
  MAX_BUFFERED,
  MAX_CONNECTIONS,
  MAX_OBJECTS,
  MAX_PAYLOAD,
  PREAMBLE,
  readU32,
  WINDOW,
  writeHeader,
  writeU53,
} from "../../src/agent/wire.ts";
import { MayflyError } from "../../src/contract/errors.ts";
import type { ByteChannel, ChannelEvents } from "../../src/sys/channel.ts";
import { Deadline } from "../../src/sys/deadline.ts";

/** A frame that the host sent. */
export interface HostFrame {
  type: number;
  stream: number;
  payload: Buffer;
}

/** Fields of the fake's hello that differ from an honest one's. */
export interface FakeHello {
  version?: number;
  flags?: number;
  maxPayload?: number;
  window?: number;
  maxObjects?: number;
  maxBuffered?: number;
  maxConnections?: number;
  objects?: readonly {
    object: number;
    kind?: number;
    ended?: boolean;
    input?: number;
    output?: number;
    error?: number;
  }[];
}

/** Concatenated little-endian numbers, each `[bytes, value]`, and raw bytes. */
export function pack(...parts: readonly (readonly [1 | 2 | 4 | 8, number | bigint] | Uint8Array | string)[]): Buffer {
  return Buffer.concat(
    parts.map((part) => {
      if (typeof part === "string") return Buffer.concat([pack([2, Buffer.byteLength(part)]), Buffer.from(part)]);
      if (part instanceof Uint8Array) return part;
      const bytes = Buffer.alloc(8);
      bytes.writeBigInt64LE(BigInt.asIntN(64, BigInt(part[1])));
      return bytes.subarray(0, part[0]);
    }),
  );
}

/** The agent's end of one connection. It keeps what the host sent in {@link frames}, and tells `onFrame` of each. */
export class FakePeer {
  readonly frames: HostFrame[] = [];
  /** Each write as the host made it. */
  readonly writes: Buffer[] = [];
  epoch = 0;
  /** The host has closed. */
  closed = false;
  onFrame: (frame: HostFrame) => void = () => undefined;
  #events: ChannelEvents | undefined;
  #received = Buffer.alloc(0);

  /** Give this to an `AgentClient`. */
  readonly connect: Connector = (events) => {
    this.#events = events;
    const channel: ByteChannel = {
      write: (bytes) => {
        const copy = Buffer.from(bytes);
        this.writes.push(copy);
        queueMicrotask(() => this.#take(copy));
        return true;
      },
      drained: () => Promise.resolve(),
      pause: () => undefined,
      resume: () => undefined,
      close: () => {
        this.closed = true;
      },
    };
    return Promise.resolve(channel);
  };

  #take(bytes: Buffer): void {
    this.#received = Buffer.concat([this.#received, bytes]);
    const start = this.#received.indexOf(PREAMBLE);
    if (this.epoch === 0) {
      if (start < 0) return;
      this.#received = this.#received.subarray(start + PREAMBLE.length);
      this.epoch = readU32(this.#received, 4);
    }
    while (this.#received.length >= HEADER_BYTES) {
      const end = HEADER_BYTES + readU32(this.#received, 12);
      if (this.#received.length < end) return;
      const frame = {
        type: this.#received[1] ?? 0,
        stream: readU32(this.#received, 8),
        payload: this.#received.subarray(HEADER_BYTES, end),
      };
      this.#received = this.#received.subarray(end);
      this.frames.push(frame);
      this.onFrame(frame);
    }
  }

  /** The first frame of a type that the host sent. */
  frame(type: number): HostFrame {
    const found = this.frames.find((frame) => frame.type === type);
    if (found === undefined) throw new Error(`the host sent no frame of type ${type}`);
    return found;
  }

  /** Bytes to the host, as they are. */
  raw(bytes: Uint8Array): void {
    this.#events?.data(bytes);
  }

  /** Ends the connection as the other side. */
  hangUp(): void {
    this.#events?.closed(undefined);
  }

  /** A frame to the host. */
  send(type: number, stream: number, payload: Uint8Array = new Uint8Array(0), epoch = this.epoch): void {
    this.raw(encodeFrame(type, epoch, stream, payload));
  }

  hello(fields: FakeHello = {}): void {
    this.raw(Buffer.concat([PREAMBLE, encodeFrame(FrameType.helloAck, this.epoch, 0, helloPayload(fields))]));
  }

  reply(stream: number, errno = 0, result: Uint8Array = new Uint8Array(0)): void {
    this.send(FrameType.reply, stream, pack([4, errno], result));
  }

  data(stream: number, offset: number, bytes: Uint8Array | string): void {
    this.send(FrameType.data, stream, pack([8, offset], Buffer.from(bytes)));
  }

  offset(type: number, stream: number, offset: number): void {
    this.send(type, stream, pack([8, offset]));
  }

  exit(object: number, end: { code?: number; signal?: number; errno?: number; output?: number; error?: number }): void {
    const { code = 0, signal = 0, errno = 0, output = 0, error = 0 } = end;
    const usage = pack([8, 1000], [8, 2000], [8, 4096], [8, output], [8, error]);
    this.send(FrameType.exit, object * 4, pack([4, code], [4, signal], [4, errno], [4, 0], usage));
  }
}

/** One frame as bytes. */
export function encodeFrame(type: number, epoch: number, stream: number, payload: Uint8Array): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES + payload.length);
  writeHeader(bytes, 0, type, epoch, stream, payload.length);
  bytes.set(payload, HEADER_BYTES);
  return bytes;
}

/** A DATA payload: the offset and the bytes. */
export function dataPayload(offset: number, bytes: Uint8Array): Buffer {
  const payload = Buffer.alloc(8 + bytes.length);
  writeU53(payload, 0, offset);
  payload.set(bytes, 8);
  return payload;
}

export function helloPayload(fields: FakeHello): Buffer {
  const objects = (fields.objects ?? []).map(({ object, kind = 1, ended = false, input = 0, output = 0, error = 0 }) =>
    pack([4, object], [1, kind], [1, ended ? 1 : 0], [2, 0], [8, input], [8, output], [8, error]),
  );
  return pack(
    [2, fields.version ?? 1],
    [2, fields.flags ?? 0],
    [4, fields.maxPayload ?? MAX_PAYLOAD],
    [4, fields.window ?? WINDOW],
    [4, fields.maxObjects ?? MAX_OBJECTS],
    [4, fields.maxBuffered ?? MAX_BUFFERED],
    [4, fields.maxConnections ?? MAX_CONNECTIONS],
    Buffer.alloc(16, 0xab),
    [4, objects.length],
    ...objects,
  );
}

/** A deadline that no test should reach. */
export function soon(): Deadline {
  return Deadline.after(10_000);
}

/** Lets everything that is queued happen. */
export function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** A client connected to a fake agent that has said hello, and the causes that `onClosed` was told. */
export async function connected(
  hello: FakeHello = {},
): Promise<{ peer: FakePeer; client: AgentClient; closed: MayflyError[] }> {
  const peer = new FakePeer();
  const closed: MayflyError[] = [];
  const client = new AgentClient(peer.connect, { deadline: soon(), onClosed: (cause) => closed.push(cause) });
  await settle();
  peer.hello(hello);
  await client.ready;
  return { peer, client, closed };
}

/** What a promise rejects with. */
export async function rejection(promise: Promise<unknown>): Promise<MayflyError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof MayflyError)) throw new Error(`expected a MayflyError, got ${error}`);
  return error;
}
