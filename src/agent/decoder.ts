/** Turns what arrives from the guest agent into frames of one epoch, whatever the boundaries of the chunks. */
import {
  FRAME_MAGIC,
  FrameType,
  HEADER_BYTES,
  MAX_PAYLOAD,
  PREAMBLE,
  readU16,
  readU32,
  violation,
  writeU32,
} from "./wire.ts";

/** Receives one frame. The payload is a view, valid during the call. A throw ends the decoding and reaches `push`'s caller. */
export type FrameSink = (type: number, stream: number, payload: Uint8Array) => void;

/** Length of what the search looks for: the preamble and the first half of a HELLO_ACK header, up to its epoch. */
const MARK_BYTES = PREAMBLE.length + 8;

/**
 * Incremental decoder. Until it has seen the preamble followed by a HELLO_ACK header of its own epoch it discards everything
 * (rests of an earlier connection); from there on each byte belongs to a frame, and frames of other epochs are dropped.
 * It holds at most one frame.
 */
export class FrameDecoder {
  readonly #epoch: number;
  readonly #sink: FrameSink;
  readonly #mark: Buffer;
  #synchronised = false;
  #stopped = false;
  /** The beginning of a frame (or, while searching, of a mark) whose rest has not arrived. */
  #partial = Buffer.allocUnsafe(4096);
  #have = 0;

  constructor(epoch: number, sink: FrameSink) {
    this.#epoch = epoch;
    this.#sink = sink;
    this.#mark = Buffer.alloc(MARK_BYTES);
    this.#mark.set(PREAMBLE);
    this.#mark[PREAMBLE.length] = FRAME_MAGIC;
    this.#mark[PREAMBLE.length + 1] = FrameType.helloAck;
    writeU32(this.#mark, PREAMBLE.length + 4, epoch);
  }

  /** No frame is delivered after this, also when called from within the sink. */
  stop(): void {
    this.#stopped = true;
  }

  /** Takes the next bytes. @throws `agent_protocol_violation`, after which nothing more may be pushed. */
  push(chunk: Uint8Array): void {
    if (this.#synchronised) this.#parse(chunk, 0);
    else this.#search(chunk);
  }

  #search(chunk: Uint8Array): void {
    const seam = Buffer.concat([this.#partial.subarray(0, this.#have), chunk.subarray(0, MARK_BYTES - 1)]);
    const inSeam = seam.indexOf(this.#mark);
    const inChunk = inSeam < 0 ? Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength).indexOf(this.#mark) : -1;
    if (inSeam < 0 && inChunk < 0) {
      const last = chunk.length < MARK_BYTES ? seam : chunk;
      this.#have = Math.min(last.length, MARK_BYTES - 1);
      this.#partial.set(last.subarray(last.length - this.#have));
      return;
    }
    this.#synchronised = true;
    this.#have = 0;
    if (inSeam >= 0) this.#parse(seam, inSeam + PREAMBLE.length);
    this.#parse(chunk, inSeam < 0 ? inChunk + PREAMBLE.length : MARK_BYTES - 1);
  }

  #parse(chunk: Uint8Array, start: number): void {
    let at = start;
    while (at < chunk.length && !this.#stopped) {
      at = this.#have > 0 ? this.#complete(chunk, at) : this.#whole(chunk, at);
    }
  }

  /** Delivers the frame at `at` if all of it is here, else keeps its beginning. @returns where to go on. */
  #whole(chunk: Uint8Array, at: number): number {
    const left = chunk.length - at;
    if (left >= HEADER_BYTES) {
      const end = at + HEADER_BYTES + this.#payloadLength(chunk, at);
      if (end <= chunk.length) {
        this.#deliver(chunk, at, end);
        return end;
      }
    }
    this.#keep(chunk, at, chunk.length);
    return chunk.length;
  }

  /** Adds to the kept beginning what is missing of its frame. @returns where to go on. */
  #complete(chunk: Uint8Array, at: number): number {
    let next = at;
    if (this.#have < HEADER_BYTES) {
      next = Math.min(chunk.length, at + HEADER_BYTES - this.#have);
      this.#keep(chunk, at, next);
      if (this.#have < HEADER_BYTES) return next;
    }
    const size = HEADER_BYTES + this.#payloadLength(this.#partial, 0);
    const end = Math.min(chunk.length, next + size - this.#have);
    this.#keep(chunk, next, end);
    if (this.#have === size) {
      this.#have = 0;
      this.#deliver(this.#partial, 0, size);
    }
    return end;
  }

  #keep(chunk: Uint8Array, from: number, to: number): void {
    const needed = this.#have + (to - from);
    if (needed > this.#partial.length) {
      const larger = Buffer.allocUnsafe(HEADER_BYTES + MAX_PAYLOAD);
      larger.set(this.#partial.subarray(0, this.#have));
      this.#partial = larger;
    }
    this.#partial.set(chunk.subarray(from, to), this.#have);
    this.#have = needed;
  }

  /** Checks the header at `at`. @returns the length of its payload in bytes. */
  #payloadLength(bytes: Uint8Array, at: number): number {
    const magic = bytes[at];
    if (magic !== FRAME_MAGIC) throw violation(`a frame begins with ${magic}, not with ${FRAME_MAGIC}`);
    const length = readU32(bytes, at + 12);
    if (length > MAX_PAYLOAD) throw violation(`a frame has ${length} bytes, at most ${MAX_PAYLOAD} are allowed`);
    return length;
  }

  #deliver(bytes: Uint8Array, at: number, end: number): void {
    if (readU32(bytes, at + 4) !== this.#epoch) return;
    const flags = readU16(bytes, at + 2);
    if (flags !== 0) throw violation(`a frame of type ${bytes[at + 1]} has the flags ${flags}, none are defined`);
    this.#sink(bytes[at + 1] ?? 0, readU32(bytes, at + 8), bytes.subarray(at + HEADER_BYTES, end));
  }
}
