/**
 * Numbers and primitives of the guest agent's wire protocol (docs/AGENT-PROTOCOL.md): frame header, bounded reading and
 * writing of payloads. All integers are little-endian.
 */
import { MayflyError } from "../contract/errors.ts";

/** The protocol version that this side speaks. */
export const PROTOCOL_VERSION = 1;
export const FRAME_MAGIC = 0xa7;
export const HEADER_BYTES = 16;
/** Largest payload of a frame, in bytes. */
export const MAX_PAYLOAD = 65536;
/** Largest number of stream bytes in one DATA frame: a payload less its `u64 offset`. */
export const MAX_DATA = MAX_PAYLOAD - 8;
/** Bytes of a stream that may be unacknowledged. */
export const WINDOW = 262144;
export const MAX_OBJECTS = 64;
/** Bound on the sum of all unacknowledged bytes that the agent keeps. */
export const MAX_BUFFERED = 8 * 1024 * 1024;
/** Highest id of an object that is no connection. */
export const MAX_OBJECT_ID = 2 ** 29 - 1;
/** Places for connections; a connection's id modulo this is its place. */
export const MAX_CONNECTIONS = 4096;
/** Ids of connections begin here. */
export const FIRST_CONNECTION_ID = 2 ** 29;
export const MAX_CONNECTION_ID = 2 ** 30 - 1;
/** Unacknowledged bytes of each connection's stream that do not count against {@link MAX_BUFFERED}. */
export const CONNECTION_FREE = 4096;
export const MAX_PING = 1024;
export const MAX_PATH = 4095;
export const ENTROPY_BYTES = 64;

/** What every connection starts with; the agent looks for it everywhere in what it receives. */
export const PREAMBLE: Uint8Array = Uint8Array.of(
  ...[0x4d, 0x61, 0x79, 0x66, 0x6c, 0x79, 0x00, 0xa7],
  ...[0xff, 0x00, 0x01, 0x7f, 0x0d, 0x0a, 0x1a, 0x0a],
);

export const FrameType = {
  hello: 1,
  helloAck: 2,
  data: 3,
  ack: 4,
  eof: 5,
  reply: 6,
  exit: 7,
  release: 8,
  ping: 9,
  exec: 16,
  signal: 17,
  resize: 18,
  fileRead: 32,
  fileWrite: 33,
  fileStat: 34,
  fileList: 35,
  fileMkdir: 36,
  fileRemove: 37,
  identity: 48,
  freeze: 50,
  thaw: 51,
  stats: 52,
  time: 53,
  sync: 54,
  trim: 55,
  limits: 56,
  container: 57,
  teardown: 58,
  connect: 64,
} as const;

/** A type of frame that asks the agent for something and is answered by a REPLY. */
export type RequestType = Exclude<(typeof FrameType)[keyof typeof FrameType], 1 | 2 | 3 | 4 | 5 | 6 | 7>;

/** Channels of an object: its streams are `id << 2 | channel`. */
export const Channel = { control: 0, input: 1, output: 2, error: 3 } as const;
/** A channel from agent to host: 2 output (or file contents), 3 standard error. */
export type OutputChannel = 2 | 3;

/** The stream of an object's channel. */
export function streamOf(object: number, channel: number): number {
  return object * 4 + channel;
}

/** The error for a peer that breaks the protocol; it ends that VM. */
export function violation(message: string): MayflyError {
  return new MayflyError("agent_protocol_violation", `The guest agent broke the protocol: ${message}`);
}

/** The error for a request that cannot be expressed on the wire. */
export function invalid(message: string): MayflyError {
  return new MayflyError("invalid_argument", message);
}

/** A little-endian u16; bytes beyond the end count as zero. */
export function readU16(bytes: Uint8Array, at: number): number {
  return (bytes[at] ?? 0) | ((bytes[at + 1] ?? 0) << 8);
}

/** A little-endian u32; bytes beyond the end count as zero. */
export function readU32(bytes: Uint8Array, at: number): number {
  return (readU16(bytes, at) | (readU16(bytes, at + 2) << 16)) >>> 0;
}

/**
 * Reads a u64 that must be exact in a number (offsets, sizes).
 * @throws `agent_protocol_violation` above 2^53-1.
 */
export function readU53(bytes: Uint8Array, at: number, what: string): number {
  const high = readU32(bytes, at + 4);
  if (high >= 2 ** 21) throw violation(`${what} is ${high} x 2^32 or more, at most 2^53-1 can be`);
  return high * 2 ** 32 + readU32(bytes, at);
}

function writeU16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value;
  bytes[at + 1] = value >>> 8;
}

/** Writes a little-endian u32. */
export function writeU32(bytes: Uint8Array, at: number, value: number): void {
  writeU16(bytes, at, value);
  writeU16(bytes, at + 2, value >>> 16);
}

/** Writes a little-endian u64 of which a number can hold 53 bits. */
export function writeU53(bytes: Uint8Array, at: number, value: number): void {
  writeU32(bytes, at, value);
  writeU32(bytes, at + 4, Math.floor(value / 2 ** 32));
}

/** Writes a frame header at `at`; `bytes` must have {@link HEADER_BYTES} of room there. */
export function writeHeader(
  bytes: Uint8Array,
  at: number,
  type: number,
  epoch: number,
  stream: number,
  length: number,
): void {
  bytes[at] = FRAME_MAGIC;
  bytes[at + 1] = type;
  writeU16(bytes, at + 2, 0);
  writeU32(bytes, at + 4, epoch);
  writeU32(bytes, at + 8, stream);
  writeU32(bytes, at + 12, length);
}

/** Writes one payload into a buffer of the largest size; every value is checked before it is written. */
export class PayloadWriter {
  readonly #bytes = Buffer.allocUnsafe(MAX_PAYLOAD);
  #at = 0;
  #what = "";

  /** Starts a payload. `what` names the request in errors. */
  begin(what: string): this {
    this.#at = 0;
    this.#what = what;
    return this;
  }

  /** The payload so far; valid until the next `begin`. */
  end(): Uint8Array {
    return this.#bytes.subarray(0, this.#at);
  }

  #room(count: number): number {
    const at = this.#at;
    if (at + count > MAX_PAYLOAD) {
      throw invalid(`Cannot ${this.#what}: the request needs more than ${MAX_PAYLOAD} bytes`);
    }
    this.#at = at + count;
    return at;
  }

  #integer(name: string, value: number, max: number): number {
    if (!Number.isInteger(value) || value < 0 || value > max) {
      throw invalid(`Cannot ${this.#what}: ${name} is ${value}, not an integer from 0 to ${max}`);
    }
    return value;
  }

  u8(name: string, value: number): this {
    this.#bytes[this.#room(1)] = this.#integer(name, value, 0xff);
    return this;
  }

  u16(name: string, value: number): this {
    writeU16(this.#bytes, this.#room(2), this.#integer(name, value, 0xffff));
    return this;
  }

  u32(name: string, value: number): this {
    writeU32(this.#bytes, this.#room(4), this.#integer(name, value, 0xffffffff));
    return this;
  }

  u53(name: string, value: number): this {
    writeU53(this.#bytes, this.#room(8), this.#integer(name, value, Number.MAX_SAFE_INTEGER));
    return this;
  }

  u64(name: string, value: bigint): this {
    if (value < 0n || value >= 1n << 64n) {
      throw invalid(`Cannot ${this.#what}: ${name} is ${value}, not an integer from 0 to 2^64-1`);
    }
    this.#bytes.writeBigUInt64LE(value, this.#room(8));
    return this;
  }

  /** Exactly `length` raw bytes. */
  raw(name: string, value: Uint8Array, length: number): this {
    if (value.length !== length) {
      throw invalid(`Cannot ${this.#what}: ${name} has ${value.length} bytes, not ${length}`);
    }
    this.#bytes.set(value, this.#room(length));
    return this;
  }

  /** A string: `u16 length` and its UTF-8 bytes, at most `maxBytes`, without NUL. */
  string(name: string, value: string, maxBytes = 0xffff): this {
    if (value.includes("\0")) {
      throw invalid(`Cannot ${this.#what}: ${name} ${JSON.stringify(value)} has a NUL character`);
    }
    const length = Buffer.byteLength(value);
    if (length > maxBytes) {
      throw invalid(`Cannot ${this.#what}: ${name} has ${length} bytes, at most ${maxBytes} are possible`);
    }
    const at = this.#room(2 + length);
    writeU16(this.#bytes, at, length);
    this.#bytes.write(value, at + 2, length, "utf8");
    return this;
  }
}

/** Reads one payload of the agent's; every read beyond its end, and every byte left over, is a violation. */
export class PayloadReader {
  readonly #bytes: Buffer;
  readonly #what: string;
  #at = 0;

  constructor(payload: Uint8Array, what: string) {
    this.#bytes = Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength);
    this.#what = what;
  }

  #take(count: number): number {
    const at = this.#at;
    if (at + count > this.#bytes.length) {
      throw violation(`${this.#what} ends after ${this.#bytes.length} bytes, ${at + count} or more were expected`);
    }
    this.#at = at + count;
    return at;
  }

  /** Bytes not read yet. */
  get left(): number {
    return this.#bytes.length - this.#at;
  }

  u8(): number {
    return this.#bytes.readUInt8(this.#take(1));
  }
  u16(): number {
    return this.#bytes.readUInt16LE(this.#take(2));
  }
  u32(): number {
    return this.#bytes.readUInt32LE(this.#take(4));
  }
  i32(): number {
    return this.#bytes.readInt32LE(this.#take(4));
  }
  u53(): number {
    return readU53(this.#bytes, this.#take(8), `a number in ${this.#what}`);
  }
  u64(): bigint {
    return this.#bytes.readBigUInt64LE(this.#take(8));
  }
  i64(): bigint {
    return this.#bytes.readBigInt64LE(this.#take(8));
  }

  /** A copy of the next `count` bytes. */
  raw(count: number): Uint8Array {
    const at = this.#take(count);
    return Uint8Array.prototype.slice.call(this.#bytes, at, at + count);
  }

  /** A string; bytes that are not UTF-8 become U+FFFD. */
  string(): string {
    const length = this.u16();
    const at = this.#take(length);
    const nul = this.#bytes.indexOf(0, at);
    if (nul >= 0 && nul < at + length) throw violation(`a string in ${this.#what} has a NUL byte`);
    return this.#bytes.toString("utf8", at, at + length);
  }

  /** Says that the payload must end here. */
  end(): void {
    if (this.left > 0) throw violation(`${this.#what} has ${this.left} bytes more than expected`);
  }
}
