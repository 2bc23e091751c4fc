/**
 * One connection to a guest agent: epoch, hello, pending requests, objects, and its end. The first cause of a failure wins,
 * rejects everything that waits, and is reported once.
 */
import { MayflyError } from "../contract/errors.ts";
import type { ByteChannel, ChannelEvents } from "../sys/channel.ts";
import { type Deadline, nowMs } from "../sys/deadline.ts";
import { FrameDecoder } from "./decoder.ts";
import type { AgentObject, ResumePoint } from "./object.ts";
import { Outbox } from "./outbox.ts";
import { type AgentHello, decodeExit, decodeHello, MIN_WINDOW } from "./results.ts";
import type { IncomingStream } from "./stream.ts";
import { FIRST_TCP_STREAM, TcpTable } from "./tcp-table.ts";
import {
  Channel,
  FrameType,
  HEADER_BYTES,
  invalid,
  MAX_OBJECT_ID,
  MAX_OBJECTS,
  PayloadReader,
  PREAMBLE,
  PROTOCOL_VERSION,
  type RequestType,
  readU53,
  streamOf,
  violation,
  writeHeader,
  writeU32,
  writeU53,
} from "./wire.ts";

/** Makes the byte channel of a connection. */
export type Connector = (events: ChannelEvents, deadline: Deadline) => Promise<ByteChannel>;

/** What a request is and how its answer is read. */
export interface Request<T> {
  type: RequestType;
  payload: Uint8Array;
  /** What is asked, as messages say it: `the ping`. */
  what: string;
  parse(reader: PayloadReader): T;
  /** Makes the error for an errno other than 0. */
  failure(errno: number): MayflyError;
  /** The stream of an object it is about; without it a fresh one. */
  stream?: number;
}

interface Pending {
  reply(reader: PayloadReader): void;
  reject(error: MayflyError): void;
}

/** Kept bytes of a stream that are acknowledged at once. */
const ACK_BYTES = 65536;
/** How long fewer than that may wait, in milliseconds, for a frame that they can go along with. */
const ACK_DELAY_MS = 10;

/** Ids of objects from here on are those of transient ones. */
const FIRST_TRANSIENT_ID = (MAX_OBJECT_ID + 1) / 2;

/** Whether an object was made for the connection that made it alone: whoever finds it later releases it. */
export function isTransient(object: number): boolean {
  return object >= FIRST_TRANSIENT_ID;
}

/** One connection to an agent: requests and their replies, objects and their streams, until it is lost or closed. */
export class AgentConnection {
  /** Resolves with what the agent says of itself. */
  readonly ready: Promise<AgentHello>;
  readonly outbox: Outbox;
  /** TCP connections inside the guest. */
  readonly tcp = new TcpTable(this);
  readonly #epoch = randomU32() || 1;
  readonly #decoder: FrameDecoder;
  readonly #ready = Promise.withResolvers<AgentHello>();
  readonly #onClosed: ((cause: MayflyError) => void) | undefined;
  readonly #pending = new Map<number, Pending[]>();
  readonly #objects = new Map<number, AgentObject>();
  readonly #resumes = new Map<number, ResumePoint>();
  readonly #unacknowledged = new Map<number, IncomingStream>();
  #nextId = 1 + (randomU32() % (FIRST_TRANSIENT_ID - 1));
  #nextTransientId = FIRST_TRANSIENT_ID + (randomU32() % (MAX_OBJECT_ID - FIRST_TRANSIENT_ID + 1));
  #hello: AgentHello | undefined;
  #greeted = false;
  #channel: ByteChannel | undefined;
  #cause: MayflyError | undefined;
  #dueTimer: ReturnType<typeof setTimeout> | undefined;
  #receivedAtMs = nowMs();

  /** Begins to connect. Requests may be made at once: they go out with the hello. */
  constructor(connect: Connector, deadline: Deadline, onClosed?: (cause: MayflyError) => void) {
    this.#onClosed = onClosed;
    this.outbox = new Outbox(
      this.#epoch,
      () => this.#sendDue(),
      () => this.tcp.outboxDrained(),
    );
    this.#decoder = new FrameDecoder(this.#epoch, (type, stream, payload) => this.#frame(type, stream, payload));
    this.ready = deadline.race(this.#ready.promise, "the guest agent's hello", () => notReady());
    this.ready.catch((error: unknown) => this.fail(asMayflyError(error)));
    connect(
      { data: (chunk) => this.#receive(chunk), closed: (cause) => this.fail(disconnected(cause)) },
      deadline,
    ).then(
      (channel) => this.#open(channel),
      (error: unknown) => this.fail(asMayflyError(error)),
    );
  }

  /** What the agent said of itself; undefined before. */
  get hello(): AgentHello | undefined {
    return this.#hello;
  }

  /** Bytes of a stream that may be unacknowledged, as far as is known. */
  get window(): number {
    return this.#hello?.window ?? MIN_WINDOW;
  }

  /** Why the connection has ended; undefined while it has not. */
  get cause(): MayflyError | undefined {
    return this.#cause;
  }

  /** When bytes last went either way, on the clock of `nowMs`. */
  get activeAtMs(): number {
    return Math.max(this.#receivedAtMs, this.outbox.writtenAtMs);
  }

  /** Whether nothing is under way: no answer is waited for, nothing is on its way, and there is no object but `main`. */
  isQuiet(main: number | undefined): boolean {
    if (this.#pending.size > 0 || this.#unacknowledged.size > 0 || !this.outbox.empty) return false;
    for (const id of this.#objects.keys()) if (id !== main) return false;
    return !this.tcp.isAwaited;
  }

  /** A fresh id for an object or a request. They start at random, so they do not meet those of earlier connections. */
  newId(): number {
    const id = this.#nextId;
    this.#nextId = id === FIRST_TRANSIENT_ID - 1 ? 1 : id + 1;
    return id;
  }

  /** A fresh id for an object that is of no use to a later connection; see {@link isTransient}. */
  newTransientId(): number {
    const id = this.#nextTransientId;
    this.#nextTransientId = id === MAX_OBJECT_ID ? FIRST_TRANSIENT_ID : id + 1;
    return id;
  }

  /**
   * Sends a request now (in one write with everything else of this turn) and waits for its answer.
   * @throws what `request.failure` makes of an errno; `deadline_exceeded`; the connection's cause when it ends first.
   */
  request<T>(request: Request<T>, deadline: Deadline): Promise<T> {
    if (this.#cause !== undefined) return Promise.reject(this.#cause);
    if (indexOf(request.payload, PREAMBLE) >= 0) {
      return Promise.reject(invalid(`Cannot send ${request.what}: its bytes contain the protocol's preamble`));
    }
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const stream = request.stream ?? streamOf(this.newId(), Channel.control);
    const reply = (reader: PayloadReader) => {
      const errno = reader.i32();
      if (errno < 0) throw violation(`its answer to ${request.what} has the errno ${errno}`);
      if (errno > 0) return reject(request.failure(errno));
      const result = request.parse(reader);
      reader.end();
      resolve(result);
    };
    const queue = this.#pending.get(stream);
    if (queue === undefined) this.#pending.set(stream, [{ reply, reject }]);
    else queue.push({ reply, reject });
    this.outbox.frame(request.type, stream, request.payload);
    return deadline.race(promise, `the guest agent's answer to ${request.what}`);
  }

  /** Makes an object known, so that its frames reach it. A resumed one must come before the hello is sent. */
  add(object: AgentObject, resume: ResumePoint | undefined): void {
    if (resume !== undefined) {
      if (this.#greeted) {
        throw invalid(`Cannot go on with object ${object.id}: the connection has begun without naming it`);
      }
      if (this.#objects.has(object.id)) throw invalid(`Cannot go on with object ${object.id} twice`);
      if (this.#resumes.size === MAX_OBJECTS) throw invalid(`Cannot go on with more than ${MAX_OBJECTS} objects`);
      this.#resumes.set(object.id, resume);
    }
    if (this.#cause !== undefined) object.lost(this.#cause);
    else this.#objects.set(object.id, object);
  }

  /** Objects that this connection knows and that outlive it, with what has arrived of their output. */
  lasting(): ResumePoint[] {
    const objects = [...this.#objects.values()].filter(({ id }) => !isTransient(id));
    return objects.map((object) => ({ object: object.id, ...object.arrived }));
  }

  /** Forgets an object: its frames are ignored from now on. */
  remove(id: number): void {
    this.#objects.delete(id);
    this.#unacknowledged.delete(streamOf(id, 2));
    this.#unacknowledged.delete(streamOf(id, 3));
  }

  /** Whether frames of the object still reach it. */
  knows(object: AgentObject): boolean {
    return this.#objects.get(object.id) === object;
  }

  /** Has what `stream` keeps acknowledged: at once if it is much, else with the next write or a little later. */
  acknowledgeSoon(id: number, stream: IncomingStream): void {
    if (stream.unacknowledged >= ACK_BYTES) {
      this.#unacknowledged.delete(id);
      this.outbox.offset(FrameType.ack, id, stream.acknowledge());
    } else if (stream.unacknowledged > 0) {
      this.#unacknowledged.set(id, stream);
      this.flushSoon();
    }
  }

  /** Sends what is due with the next write, or a little later. */
  flushSoon(): void {
    this.#dueTimer ??= setTimeout(() => this.#sendDue(), ACK_DELAY_MS).unref();
  }

  /** Ends the connection: everything that waits is rejected, and `onClosed` is called. Only the first call counts. */
  fail(cause: MayflyError): void {
    if (this.#end(cause)) this.#onClosed?.(cause);
  }

  /** Ends the connection on our own wish: everything that waits is rejected; `onClosed` is not called. */
  close(
    cause = new MayflyError("agent_disconnected", "The connection to the guest agent was closed by this side"),
  ): void {
    this.#end(cause);
  }

  #end(cause: MayflyError): boolean {
    if (this.#cause !== undefined) return false;
    this.#cause = cause;
    clearTimeout(this.#dueTimer);
    this.#decoder.stop();
    this.outbox.close();
    this.#channel?.close();
    this.#ready.reject(cause);
    const pending = [...this.#pending.values()].flat();
    this.#pending.clear();
    for (const request of pending) request.reject(cause);
    const objects = [...this.#objects.values()];
    this.#objects.clear();
    this.#unacknowledged.clear();
    for (const object of objects) object.lost(cause);
    this.tcp.lost(cause);
    return true;
  }

  #open(channel: ByteChannel): void {
    if (this.#cause !== undefined) {
      channel.close();
      return;
    }
    this.#channel = channel;
    this.#greeted = true;
    this.outbox.open(channel, this.#greeting());
  }

  /** The preamble and the HELLO, which names the offset of each resumed stream. */
  #greeting(): Uint8Array {
    const count = 2 * this.#resumes.size;
    const length = 8 + 12 * count;
    const bytes = Buffer.alloc(PREAMBLE.length + HEADER_BYTES + length);
    bytes.set(PREAMBLE);
    writeHeader(bytes, PREAMBLE.length, FrameType.hello, this.#epoch, 0, length);
    let at = bytes.writeUInt32LE(PROTOCOL_VERSION, PREAMBLE.length + HEADER_BYTES);
    at = bytes.writeUInt32LE(count, at);
    for (const { object, output, error } of this.#resumes.values()) {
      writeU32(bytes, at, streamOf(object, Channel.output));
      writeU53(bytes, at + 4, output);
      writeU32(bytes, at + 12, streamOf(object, Channel.error));
      writeU53(bytes, at + 16, error);
      at += 24;
    }
    return bytes;
  }

  #receive(chunk: Uint8Array): void {
    if (this.#cause !== undefined) return;
    this.#receivedAtMs = nowMs();
    try {
      this.#decoder.push(chunk);
    } catch (error) {
      this.fail(asMayflyError(error));
    }
  }

  #frame(type: number, stream: number, payload: Uint8Array): void {
    if (this.#hello === undefined) {
      this.#greet(stream, payload);
      return;
    }
    if (stream >= FIRST_TCP_STREAM) {
      this.tcp.frame(type, stream, payload);
      return;
    }
    const channel = stream & 3;
    const object = this.#objects.get(stream >>> 2);
    switch (type) {
      case FrameType.data:
        if (payload.length < 8) throw violation(`a DATA frame has ${payload.length} bytes, at least 8 are needed`);
        object?.data(channel, payload.subarray(8), readU53(payload, 0, "an offset"));
        return;
      case FrameType.ack:
        if (channel !== Channel.input) throw violation(`it acknowledged channel ${channel}`);
        object?.input.ack(offsetOf(payload));
        return;
      case FrameType.eof:
        object?.eof(channel, offsetOf(payload));
        return;
      case FrameType.reply:
        this.#reply(stream, payload);
        return;
      case FrameType.exit:
        if (channel !== Channel.control) throw violation(`it sent an exit on channel ${channel}`);
        object?.exit(decodeExit(payload));
        return;
      default:
        throw violation(`it sent a frame of type ${type}`);
    }
  }

  #greet(stream: number, payload: Uint8Array): void {
    if (stream !== 0) throw violation(`its hello is on stream ${stream}`);
    const hello = decodeHello(payload);
    this.#hello = hello;
    const known = new Map(hello.objects.map((entry) => [entry.object, entry]));
    for (const object of [...this.#objects.values()]) {
      object.greeted(hello, known.get(object.id));
    }
    this.#ready.resolve(hello);
  }

  #reply(stream: number, payload: Uint8Array): void {
    const queue = this.#pending.get(stream);
    const pending = queue?.shift();
    if (queue === undefined || pending === undefined)
      throw violation(`it answered stream ${stream}, which asked nothing`);
    if (queue.length === 0) this.#pending.delete(stream);
    try {
      pending.reply(new PayloadReader(payload, "an answer"));
    } catch (error) {
      const cause = asMayflyError(error);
      pending.reject(cause);
      throw cause;
    }
  }

  #sendDue(): void {
    clearTimeout(this.#dueTimer);
    this.#dueTimer = undefined;
    this.tcp.flush();
    for (const [id, stream] of this.#unacknowledged) {
      if (stream.unacknowledged > 0) this.outbox.offset(FrameType.ack, id, stream.acknowledge());
    }
    this.#unacknowledged.clear();
  }
}

function offsetOf(payload: Uint8Array): number {
  if (payload.length !== 8) throw violation(`an offset has ${payload.length} bytes, not 8`);
  return readU53(payload, 0, "an offset");
}

function randomU32(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0] ?? 0;
}

function indexOf(bytes: Uint8Array, wanted: Uint8Array): number {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).indexOf(wanted);
}

function notReady(): MayflyError {
  return new MayflyError("agent_not_ready", "The guest agent did not say hello before the deadline");
}

function disconnected(cause: Error | undefined): MayflyError {
  const why = cause === undefined ? "the other side closed it" : cause.message;
  return new MayflyError("agent_disconnected", `The connection to the guest agent is gone: ${why}`, { cause });
}

function asMayflyError(error: unknown): MayflyError {
  if (error instanceof MayflyError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new MayflyError("internal", `The connection to the guest agent failed: ${message}`, { cause: error });
}
