/** Frames on their way to the agent: what is queued in one turn of the event loop goes out in one write. */
import type { ByteChannel } from "../sys/channel.ts";
import { nowMs } from "../sys/deadline.ts";
import { FrameType, HEADER_BYTES, streamOf, writeHeader, writeU53 } from "./wire.ts";

/** Bytes after which a write does not wait for the end of the turn. */
const FLUSH_BYTES = 256 * 1024;

/** Length of a frame of padding: a whole number of pages, so that most that it goes into have nothing but zeroes. */
export const PADDING_BYTES = 64 * 1024;

/** Collects frames of one epoch and writes them to a channel. Before {@link open} it only collects. */
export class Outbox {
  readonly #epoch: number;
  readonly #beforeFlush: () => void;
  readonly #onDrained: () => void;
  #bytes = Buffer.allocUnsafe(1024);
  #used = 0;
  #scheduled = false;
  #channel: ByteChannel | undefined;
  #stalled = false;
  #wanted: (() => void) | undefined;
  #writtenAtMs = 0;

  /**
   * @param beforeFlush may add frames to the write that is about to be made.
   * @param onDrained is called when the outbox is no longer {@link stalled}.
   */
  constructor(epoch: number, beforeFlush: () => void, onDrained: () => void = () => undefined) {
    this.#epoch = epoch;
    this.#beforeFlush = beforeFlush;
    this.#onDrained = onDrained;
  }

  /** The channel has not taken yet what was written: whoever can wait should not add more. */
  get stalled(): boolean {
    return this.#stalled;
  }

  /** Whether all that was added has been handed to the kernel. */
  get empty(): boolean {
    return this.#used === 0 && !this.#stalled;
  }

  /** When something was last written, on the clock of `nowMs`; 0: never. */
  get writtenAtMs(): number {
    return this.#writtenAtMs;
  }

  /** Calls `wanted` once, just before the next frame is added: what it adds itself goes first. Undefined: not any more. */
  beforeNext(wanted: (() => void) | undefined): void {
    this.#wanted = wanted;
  }

  /** Adds a frame. The payload is copied. */
  frame(type: number, stream: number, payload: Uint8Array): void {
    // Encoders use one buffer: what is sent first overwrites it.
    const own = this.#wanted === undefined ? payload : new Uint8Array(payload);
    const at = this.#header(type, stream, own.length);
    this.#bytes.set(own, at);
    this.#schedule();
  }

  /** Adds a frame whose payload is an offset: ACK or EOF. */
  offset(type: number, stream: number, offset: number): void {
    const at = this.#header(type, stream, 8);
    writeU53(this.#bytes, at, offset);
    this.#schedule();
  }

  /** Adds a DATA frame of an object's channel 1. The bytes are copied. */
  data(object: number, bytes: Uint8Array, offset: number): void {
    const at = this.#header(FrameType.data, streamOf(object, 1), 8 + bytes.length);
    writeU53(this.#bytes, at, offset);
    this.#bytes.set(bytes, at + 8);
    this.#schedule();
  }

  /** Adds zeroes that the agent ignores: a frame of an epoch that no connection has, as long as {@link PADDING_BYTES}. */
  padding(): void {
    const at = this.#header(0, 0, PADDING_BYTES - HEADER_BYTES, 0);
    this.#bytes.fill(0, at, this.#used);
    this.#schedule();
  }

  /** From now on frames go to `channel`: first `greeting`, and in the same write everything collected. */
  open(channel: ByteChannel, greeting: Uint8Array): void {
    const first = Buffer.concat([greeting, this.#bytes.subarray(0, this.#used)]);
    this.#used = 0;
    this.#channel = channel;
    this.#hand(first);
  }

  /** Drops what has not been written, and everything added later. */
  close(): void {
    this.#channel = undefined;
    this.#used = 0;
    this.#wanted = undefined;
  }

  /** Writes a header and makes room for its payload. @returns where that begins. */
  #header(type: number, stream: number, length: number, epoch = this.#epoch): number {
    if (this.#wanted !== undefined) {
      const wanted = this.#wanted;
      this.#wanted = undefined;
      wanted();
    }
    const needed = this.#used + HEADER_BYTES + length;
    if (needed > this.#bytes.length) {
      const larger = Buffer.allocUnsafe(Math.max(needed, 2 * this.#bytes.length));
      larger.set(this.#bytes.subarray(0, this.#used));
      this.#bytes = larger;
    }
    writeHeader(this.#bytes, this.#used, type, epoch, stream, length);
    const at = this.#used + HEADER_BYTES;
    this.#used = needed;
    return at;
  }

  #schedule(): void {
    if (this.#channel === undefined) return;
    if (this.#used >= FLUSH_BYTES) this.#write();
    else if (!this.#scheduled) {
      this.#scheduled = true;
      queueMicrotask(() => {
        if (this.#channel !== undefined) {
          this.#beforeFlush();
          this.#write();
        }
        this.#scheduled = false;
      });
    }
  }

  #write(): void {
    if (this.#used === 0) return;
    const bytes = this.#bytes.subarray(0, this.#used);
    this.#used = 0;
    this.#hand(bytes);
  }

  #hand(bytes: Uint8Array): void {
    this.#writtenAtMs = nowMs();
    if (this.#channel === undefined || this.#channel.write(bytes) || this.#stalled) return;
    this.#stalled = true;
    const resume = () => {
      this.#stalled = false;
      if (this.#channel !== undefined) this.#onDrained();
    };
    // The connection's end is told elsewhere.
    this.#channel.drained().then(resume, () => undefined);
  }
}
