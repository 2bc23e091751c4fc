/** All TCP connections of one connection to an agent: their places, what they may have on the way in sum, and what is due. */
import { MayflyError } from "../contract/errors.ts";
import { connectionLimit } from "./failures.ts";
import type { Outbox } from "./outbox.ts";
import { encodeConnect } from "./requests.ts";
import { decodeExit } from "./results.ts";
import { GuestTcp, placeOf, type TcpEvents, type TcpTarget } from "./tcp.ts";
import {
  Channel,
  CONNECTION_FREE,
  FIRST_CONNECTION_ID,
  FrameType,
  MAX_BUFFERED,
  MAX_CONNECTION_ID,
  MAX_CONNECTIONS,
  PayloadReader,
  readU53,
  streamOf,
  violation,
} from "./wire.ts";

/** What a table needs of the connection to the agent. */
export interface TcpCarrier {
  readonly outbox: Outbox;
  /** Bytes of a stream that may be unacknowledged. */
  readonly window: number;
  /** Why it has ended; undefined while it has not. */
  readonly cause: MayflyError | undefined;
  /** Calls {@link TcpTable.flush} with the next write, or a few milliseconds from now. */
  flushSoon(): void;
}

/** Streams from here on are those of connections. */
export const FIRST_TCP_STREAM = streamOf(FIRST_CONNECTION_ID, 0);
/** Each connection may use this part of what the others leave of {@link MAX_BUFFERED}. */
const SHARE = 8;
const GENERATIONS = (MAX_CONNECTION_ID + 1 - FIRST_CONNECTION_ID) / MAX_CONNECTIONS;
const NO_PAYLOAD = new Uint8Array(0);

/** The connections by their places. */
export class TcpTable {
  readonly #carrier: TcpCarrier;
  readonly #places: (GuestTcp | undefined)[] = [];
  /** How often each place was used. */
  readonly #uses: number[] = [];
  /** Places that were used and are free again, the one freed last at the end. */
  readonly #free: number[] = [];
  readonly #acknowledgements = new Set<GuestTcp>();
  readonly #releases = new Set<GuestTcp>();
  /** Those that had no room because the outbox had none. */
  #waiting = new Set<GuestTcp>();
  /** Sums over all of unacknowledged bytes above {@link CONNECTION_FREE} of each. */
  #sharedSent = 0;
  #sharedReceived = 0;

  constructor(carrier: TcpCarrier) {
    this.#carrier = carrier;
  }

  /** Connections that have a place. */
  get size(): number {
    return this.#places.length - this.#free.length;
  }

  /** Whether the guest has the next word on any of them. */
  get isAwaited(): boolean {
    return this.#places.some((connection) => connection?.isAwaited === true);
  }

  /**
   * Sends CONNECT now; what is written follows at once.
   * @throws `limit_reached` when there is no place, `invalid_argument`, or why the connection to the agent is gone.
   */
  open(target: TcpTarget, events: TcpEvents): GuestTcp {
    if (this.#carrier.cause !== undefined) throw this.#carrier.cause;
    const payload = encodeConnect(target.port, target.address ?? "");
    const place = this.#free.pop() ?? this.#places.length;
    if (place >= MAX_CONNECTIONS) throw connectionLimit(target, MAX_CONNECTIONS);
    const uses = this.#uses[place] ?? 0;
    this.#uses[place] = uses + 1;
    const id = FIRST_CONNECTION_ID + (uses % GENERATIONS) * MAX_CONNECTIONS + place;
    const connection = new GuestTcp(this, id, target, events);
    this.#places[place] = connection;
    this.#carrier.outbox.frame(FrameType.connect, streamOf(id, Channel.control), payload);
    return connection;
  }

  /** Takes a frame of a connection. @throws `agent_protocol_violation`. */
  frame(type: number, stream: number, payload: Uint8Array): void {
    const channel = stream & 3;
    const connection = this.#places[placeOf(stream >>> 2)];
    if (connection === undefined || connection.id !== stream >>> 2) {
      throw violation(`it sent a frame of type ${type} of connection ${stream >>> 2}, which there is not`);
    }
    const expected = EXPECTED_CHANNEL[type];
    if (expected !== channel) throw violation(`it sent a frame of type ${type} on channel ${channel} of a connection`);
    switch (type) {
      case FrameType.data:
        if (payload.length < 8) throw violation(`a DATA frame has ${payload.length} bytes, at least 8 are needed`);
        connection.data(payload.subarray(8), readU53(payload, 0, "an offset"));
        return;
      case FrameType.ack:
        connection.ack(offsetOf(payload));
        return;
      case FrameType.eof:
        connection.eof(offsetOf(payload));
        return;
      case FrameType.exit:
        connection.exit(decodeExit(payload));
        return;
      default:
        this.#reply(connection, payload);
    }
  }

  #reply(connection: GuestTcp, payload: Uint8Array): void {
    const reader = new PayloadReader(payload, "an answer");
    const errno = reader.i32();
    reader.end();
    if (errno < 0) throw violation(`its answer to a connection has the errno ${errno}`);
    if (!connection.reply(errno)) return;
    const place = placeOf(connection.id);
    this.#places[place] = undefined;
    this.#releases.delete(connection);
    this.#free.push(place);
  }

  /** Bytes that a connection with so many unacknowledged may send now. */
  room(unacknowledged: number): number {
    if (this.#carrier.outbox.stalled) return 0;
    return this.#limit(this.#sharedSent) - unacknowledged;
  }

  /** Kept bytes that are acknowledged at once: a part of what the agent can have on the way. */
  get acknowledgeAt(): number {
    return this.#limit(this.#sharedReceived) >> 2;
  }

  #limit(shared: number): number {
    return Math.min(this.#carrier.window, CONNECTION_FREE + Math.floor((MAX_BUFFERED - shared) / SHARE));
  }

  /** Notes that a connection has `after` unacknowledged bytes on the way to the agent instead of `before`. */
  countSent(before: number, after: number): void {
    this.#sharedSent += sharedPart(after) - sharedPart(before);
  }

  /** The same for the other direction. @throws `agent_protocol_violation` when it is more than the agent may send. */
  countReceived(before: number, after: number): void {
    this.#sharedReceived += sharedPart(after) - sharedPart(before);
    const { window } = this.#carrier;
    if (after > window) throw violation(`${after} bytes of a connection are unacknowledged, the window is ${window}`);
    if (this.#sharedReceived > MAX_BUFFERED) {
      throw violation(`${this.#sharedReceived} bytes of all connections are unacknowledged, ${MAX_BUFFERED} may be`);
    }
  }

  /** Sends DATA. */
  data(id: number, bytes: Uint8Array, offset: number): void {
    this.#carrier.outbox.data(id, bytes, offset);
  }

  /** Sends an ACK or EOF. */
  offset(type: number, stream: number, offset: number): void {
    this.#carrier.outbox.offset(type, stream, offset);
  }

  /** Sends a request of a connection without a payload. */
  request(type: number, id: number): void {
    this.#carrier.outbox.frame(type, streamOf(id, Channel.control), NO_PAYLOAD);
  }

  /** Has {@link GuestTcp.acknowledge} called with the next write, or a little later. */
  acknowledgeSoon(connection: GuestTcp): void {
    this.#acknowledgements.add(connection);
    this.#carrier.flushSoon();
  }

  /** The same for {@link GuestTcp.release}. */
  releaseSoon(connection: GuestTcp): void {
    this.#releases.add(connection);
    this.#carrier.flushSoon();
  }

  /** Has a connection woken when the outbox takes bytes again, if it does not now. */
  waitForOutbox(connection: GuestTcp): void {
    if (this.#carrier.outbox.stalled) this.#waiting.add(connection);
  }

  /** Sends what is due. */
  flush(): void {
    for (const connection of this.#acknowledgements) connection.acknowledge();
    this.#acknowledgements.clear();
    for (const connection of this.#releases) connection.release();
    this.#releases.clear();
  }

  /** The outbox takes bytes again: first come, first served. */
  outboxDrained(): void {
    const waiting = this.#waiting;
    this.#waiting = new Set();
    for (const connection of waiting) connection.wake();
  }

  /** What an owner's failure means for its connection. */
  ownerFailed(error: unknown): MayflyError {
    if (error instanceof MayflyError) return error;
    const message = error instanceof Error ? error.message : String(error);
    return new MayflyError("internal", `A connection into the VM failed on this side: ${message}`, { cause: error });
  }

  /** The connection to the agent is gone, and all of these with it. */
  lost(error: MayflyError): void {
    const connections = this.#places.splice(0);
    this.#free.length = 0;
    for (const set of [this.#acknowledgements, this.#releases, this.#waiting]) set.clear();
    for (const connection of connections) connection?.lost(error);
  }
}

/** Channel of each type of frame that an agent may send of a connection. */
const EXPECTED_CHANNEL: Readonly<Record<number, number>> = {
  [FrameType.data]: Channel.output,
  [FrameType.ack]: Channel.input,
  [FrameType.eof]: Channel.output,
  [FrameType.reply]: Channel.control,
  [FrameType.exit]: Channel.control,
};

function sharedPart(unacknowledged: number): number {
  return Math.max(0, unacknowledged - CONNECTION_FREE);
}

function offsetOf(payload: Uint8Array): number {
  if (payload.length !== 8) throw violation(`an offset has ${payload.length} bytes, not 8`);
  return readU53(payload, 0, "an offset");
}
