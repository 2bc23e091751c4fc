/** One direction of one stream: offsets, window and acknowledgement. Nothing here knows of frames or sockets. */
import { MAX_DATA, PREAMBLE, violation } from "./wire.ts";

/** Where an outgoing stream puts what may be sent now. */
export interface StreamOutlet {
  /** Sends `bytes` (at most 65528, free of the preamble), the first of which has the given offset. */
  data(bytes: Uint8Array, offset: number): void;
  eof(offset: number): void;
}

interface PendingWrite {
  bytes: Uint8Array;
  resolve(open: boolean): void;
  reject(error: Error): void;
}

/**
 * The length of the longest beginning of `bytes`, at most `limit`, that may go into one DATA frame. The agent looks for the
 * preamble inside payloads too, so a frame header has to fall into each preamble that the bytes contain.
 */
export function payloadLength(bytes: Buffer, from: number, limit: number): number {
  const length = Math.min(bytes.length - from, limit, MAX_DATA);
  const found = bytes.subarray(from, from + length).indexOf(PREAMBLE);
  return found < 0 ? length : found + PREAMBLE.length / 2;
}

/** Host to agent (channel 1). Sends at once while the window has room, and the rest as the agent acknowledges. */
export class OutgoingStream {
  readonly #outlet: StreamOutlet;
  #window: number;
  #queue: PendingWrite[] = [];
  #sent: number;
  #acked: number;
  #endAsked = false;
  #endSent = false;
  #stopped: { error: Error | undefined } | undefined;

  /** @param window bytes that may be unacknowledged; 0 holds everything back until {@link resume}. */
  constructor(outlet: StreamOutlet, window: number) {
    this.#outlet = outlet;
    this.#window = window;
    this.#sent = 0;
    this.#acked = 0;
  }

  /** Bytes that the agent has kept. */
  get kept(): number {
    return this.#acked;
  }

  /** Offset of the next byte to be sent. */
  get offset(): number {
    return this.#sent;
  }

  /** Whether what is written can still reach the process. */
  get open(): boolean {
    return this.#stopped === undefined && !this.#endAsked;
  }

  /** Starts at `offset` instead of 0: what the agent has kept already. Only before anything was sent. */
  resume(offset: number, window: number): void {
    this.#sent = offset;
    this.#acked = offset;
    this.widen(window);
  }

  /** Sets the window to what the agent allows. */
  widen(window: number): void {
    this.#window = window;
    this.#pump();
  }

  /**
   * Sends `bytes`, which must not change until the promise resolves.
   * @returns once all of them are on their way (there was room in the window): whether the other end still reads. False means
   * that it has ended and the bytes are lost. Rejects with the connection's error when that breaks first.
   */
  write(bytes: Uint8Array): Promise<boolean> {
    if (this.#stopped?.error !== undefined) return Promise.reject(this.#stopped.error);
    if (!this.open) return Promise.resolve(false);
    const { promise, resolve, reject } = Promise.withResolvers<boolean>();
    this.#queue.push({ bytes, resolve, reject });
    this.#pump();
    return promise;
  }

  /** Ends the stream after what has been written. */
  end(): void {
    this.#endAsked = true;
    this.#pump();
  }

  /** Takes an acknowledgement. @throws `agent_protocol_violation` when it goes back or beyond what was sent. */
  ack(offset: number): void {
    if (offset < this.#acked || offset > this.#sent) {
      throw violation(`it acknowledged input up to ${offset}; between ${this.#acked} and ${this.#sent} were sent`);
    }
    this.#acked = offset;
    this.#pump();
  }

  /** Nothing is sent any more: waiting writes resolve to false, or reject with `error`. */
  stop(error?: Error): void {
    if (this.#stopped !== undefined) return;
    this.#stopped = { error };
    for (const write of this.#queue.splice(0)) {
      if (error === undefined) write.resolve(false);
      else write.reject(error);
    }
  }

  #pump(): void {
    if (this.#stopped !== undefined || this.#window === 0) return;
    for (let head = this.#queue[0]; head !== undefined; head = this.#queue[0]) {
      const sent = this.#send(Buffer.from(head.bytes.buffer, head.bytes.byteOffset, head.bytes.byteLength));
      if (sent < head.bytes.length) {
        head.bytes = head.bytes.subarray(sent);
        return;
      }
      this.#queue.shift();
      head.resolve(true);
    }
    if (this.#endAsked && !this.#endSent) {
      this.#endSent = true;
      this.#outlet.eof(this.#sent);
    }
  }

  /** Sends as much of `bytes` as the window allows. @returns how much. */
  #send(bytes: Buffer): number {
    let from = 0;
    while (from < bytes.length) {
      const room = this.#acked + this.#window - this.#sent;
      if (room <= 0) break;
      const length = payloadLength(bytes, from, room);
      this.#outlet.data(bytes.subarray(from, from + length), this.#sent);
      this.#sent += length;
      from += length;
    }
    return from;
  }
}

/** What an incoming stream tells its owner. */
export interface StreamInlet {
  /**
   * Takes bytes. The chunk is valid during the call: copy what is used later. Returning, or resolving, means that
   * the bytes are kept; calls never overlap.
   */
  deliver(chunk: Uint8Array, offset: number): void | Promise<void>;
  /** More has been kept, or the end has come. */
  progress(stream: IncomingStream): void;
  /** The consumer threw: what follows is dropped and not acknowledged. */
  failed(error: unknown): void;
}

/**
 * Agent to host (channels 2 and 3). While the consumer is busy, bytes wait in one buffer that cannot outgrow the window,
 * because a peer that sends more than that unacknowledged breaks the protocol.
 */
export class IncomingStream {
  readonly #inlet: StreamInlet;
  #window: number;
  #received: number;
  #kept: number;
  #acked: number;
  #end: number | undefined;
  #waiting = Buffer.alloc(0);
  #waitingBytes = 0;
  #busy: Promise<void> | undefined;
  #stopped = false;

  constructor(inlet: StreamInlet, offset: number, window: number) {
    this.#inlet = inlet;
    this.#window = window;
    this.#received = offset;
    this.#kept = offset;
    this.#acked = offset;
  }

  /** Everything before this offset has been kept by the consumer. */
  get kept(): number {
    return this.#kept;
  }

  /** Everything before this offset has arrived. */
  get received(): number {
    return this.#received;
  }

  /** Whether the end has come and everything before it is kept. */
  get finished(): boolean {
    return this.#end !== undefined && this.#kept === this.#end;
  }

  /** Bytes kept and not yet acknowledged. */
  get unacknowledged(): number {
    return this.#stopped ? 0 : this.#kept - this.#acked;
  }

  /** Notes that everything kept is being acknowledged. @returns the offset to send. */
  acknowledge(): number {
    this.#acked = this.#kept;
    return this.#kept;
  }

  /** Sets the window to what the agent announced. */
  limit(window: number): void {
    this.#window = window;
  }

  /** Resolves when no call of the consumer is under way. */
  async idle(): Promise<void> {
    while (this.#busy !== undefined) await this.#busy;
  }

  /** Leaves out bytes that nobody has any more; only before the first ones arrive. */
  skipTo(offset: number): void {
    this.#received = offset;
    this.#kept = offset;
    this.#acked = offset;
  }

  /** Takes a DATA frame's bytes. @throws `agent_protocol_violation` for a gap, bytes after the end, or more than the window. */
  data(bytes: Uint8Array, offset: number): void {
    if (offset !== this.#received) {
      throw violation(`output continues at offset ${offset}, ${this.#received} was to come`);
    }
    if (this.#end !== undefined) throw violation(`output goes on after its end at ${this.#end}`);
    const unacknowledged = offset + bytes.length - this.#acked;
    if (unacknowledged > this.#window) {
      throw violation(`${unacknowledged} bytes of output are unacknowledged, the window is ${this.#window}`);
    }
    this.#received += bytes.length;
    if (this.#stopped || bytes.length === 0) return;
    if (this.#busy !== undefined) this.#wait(bytes);
    else this.#deliver(bytes, offset);
  }

  /** Takes the end. @throws `agent_protocol_violation` when it is not where the bytes stopped. */
  eof(offset: number): void {
    if (offset !== this.#received) throw violation(`output ends at ${offset}, but ${this.#received} bytes came`);
    this.#end = offset;
    if (!this.#stopped) this.#inlet.progress(this);
  }

  /** Delivers nothing any more; a call under way may still finish. */
  stop(): void {
    this.#stopped = true;
    this.#waiting = Buffer.alloc(0);
    this.#waitingBytes = 0;
  }

  #wait(bytes: Uint8Array): void {
    const needed = this.#waitingBytes + bytes.length;
    if (needed > this.#waiting.length) {
      const larger = Buffer.allocUnsafe(Math.min(this.#window, Math.max(needed, 2 * this.#waiting.length, 4096)));
      larger.set(this.#waiting.subarray(0, this.#waitingBytes));
      this.#waiting = larger;
    }
    this.#waiting.set(bytes, this.#waitingBytes);
    this.#waitingBytes = needed;
  }

  #deliver(bytes: Uint8Array, offset: number): void {
    const end = offset + bytes.length;
    let result: void | Promise<void>;
    try {
      result = this.#inlet.deliver(bytes, offset);
    } catch (error) {
      this.#fail(error);
      return;
    }
    if (result instanceof Promise) {
      this.#busy = result.then(
        () => this.#consumed(end),
        (error: unknown) => this.#fail(error),
      );
      return;
    }
    this.#kept = end;
    if (!this.#stopped) this.#inlet.progress(this);
  }

  /** The consumer has kept everything before `end`: give it what came meanwhile. */
  #consumed(end: number): void {
    this.#busy = undefined;
    this.#kept = end;
    if (this.#stopped) return;
    if (this.#waitingBytes > 0) {
      const bytes = this.#waiting.subarray(0, this.#waitingBytes);
      this.#waiting = Buffer.alloc(0);
      this.#waitingBytes = 0;
      this.#deliver(bytes, end);
    } else {
      this.#inlet.progress(this);
    }
  }

  #fail(error: unknown): void {
    this.#busy = undefined;
    if (this.#stopped) return;
    this.stop();
    this.#inlet.failed(error);
  }
}
