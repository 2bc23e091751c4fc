/** A TCP connection inside the guest: bytes both ways with flow control, an end for each direction, resets. */
import type { MayflyError } from "../contract/errors.ts";
import { connectFailure, droppedFailure, resetFailure } from "./failures.ts";
import type { ExitReport } from "./results.ts";
import { payloadLength } from "./stream.ts";
import type { TcpTable } from "./tcp-table.ts";
import { Channel, FrameType, MAX_CONNECTIONS, streamOf, violation } from "./wire.ts";

/** Where to connect to, inside the guest. */
export interface TcpTarget {
  port: number;
  /** A numeric address; absent: 127.0.0.1, then ::1. */
  address?: string;
}

/** What a connection tells its owner. */
export interface TcpEvents {
  /** Bytes from the guest. The chunk is valid during the call. Each byte is to be given back by {@link GuestTcp.consumed} once it was passed on. */
  data(chunk: Uint8Array): void;
  /** The guest sends nothing more. */
  end(): void;
  /** {@link GuestTcp.write} takes bytes again after it took fewer than were offered. */
  writable(): void;
}

/** How a connection ended. */
export interface TcpEnd {
  /**
   * `finished`: both directions ended. `refused`: it never stood. `reset`: broken in the guest. `dropped`: by {@link GuestTcp.reset}.
   * `lost`: the connection to the agent is gone, or the owner failed.
   */
  reason: "finished" | "refused" | "reset" | "dropped" | "lost";
  /** Why, where it is not as it should be. */
  error?: MayflyError;
}

/** One connection. Made by {@link TcpTable.open}; its table feeds it frames. */
export class GuestTcp {
  /** The object's id in the protocol. */
  readonly id: number;
  /** Resolves when the connection stands in the guest; rejects when it is refused or goes before. */
  readonly connected: Promise<void>;
  /** Resolves once, when it is over; never rejects. */
  readonly closed: Promise<TcpEnd>;
  readonly #table: TcpTable;
  readonly #target: TcpTarget;
  readonly #events: TcpEvents;
  readonly #connected = Promise.withResolvers<void>();
  readonly #closed = Promise.withResolvers<TcpEnd>();
  /** Answers that the agent owes. */
  #connecting = true;
  #releasing = false;
  #over = false;
  #wantsToWrite = false;
  #sent = 0;
  #acked = 0;
  #endSent = false;
  /** The end goes out with the RELEASE. */
  #endDue = false;
  #received = 0;
  #kept = 0;
  #keptAcked = 0;
  #ended = false;
  #exited = false;
  /** The last word was this side's. */
  #awaited = false;

  constructor(table: TcpTable, id: number, target: TcpTarget, events: TcpEvents) {
    this.#table = table;
    this.id = id;
    this.#target = target;
    this.#events = events;
    this.connected = this.#connected.promise;
    this.connected.catch(() => undefined);
    this.closed = this.#closed.promise;
  }

  /** Whether the guest has the next word: it was told something, or the end, and has said nothing since. */
  get isAwaited(): boolean {
    return !this.#over && (this.#connecting || this.#awaited);
  }

  /** Bytes that were sent and that the guest's socket has not taken, as far as is known. */
  get unacknowledged(): number {
    return this.#sent - this.#acked;
  }

  /**
   * Sends as many of `bytes` as may be sent now; they are copied. When it took fewer, {@link TcpEvents.writable} tells when to go on.
   * @returns how many it took; 0 after {@link end} and when the connection is over.
   */
  write(bytes: Uint8Array): number {
    if (this.#over || this.#endSent) return 0;
    const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    let taken = 0;
    while (taken < buffer.length) {
      const room = this.#table.room(this.unacknowledged);
      if (room <= 0) break;
      const length = payloadLength(buffer, taken, room);
      this.#table.data(this.id, buffer.subarray(taken, taken + length), this.#sent);
      const before = this.unacknowledged;
      this.#awaited = true;
      this.#sent += length;
      this.#table.countSent(before, this.unacknowledged);
      taken += length;
    }
    if (taken < buffer.length) {
      this.#wantsToWrite = true;
      this.#table.waitForOutbox(this);
    }
    return taken;
  }

  /** Ends this side's direction after what has been written. */
  end(): void {
    if (this.#over || this.#endSent) return;
    this.#endSent = true;
    this.#awaited = true;
    // Nothing is missing on either side: the agent need not say so, and nobody waits for this.
    if (this.#ended && this.#acked === this.#sent) {
      this.#endDue = true;
      this.#finish({ reason: "finished" });
      this.#table.releaseSoon(this);
    } else {
      this.#table.offset(FrameType.eof, streamOf(this.id, Channel.input), this.#sent);
    }
  }

  /** Breaks the connection: the guest sees a reset. */
  reset(): void {
    if (this.#over) return;
    this.#finish({ reason: "dropped" });
    this.release();
  }

  /** Bytes of {@link TcpEvents.data} were passed on: the guest may send as many more. */
  consumed(byteCount: number): void {
    this.#kept += byteCount;
    if (this.#over) return;
    if (this.#kept - this.#keptAcked >= this.#table.acknowledgeAt) this.acknowledge();
    else if (this.#kept > this.#keptAcked) this.#table.acknowledgeSoon(this);
  }

  /** Sends the acknowledgement that is due. For the table. */
  acknowledge(): void {
    if (this.#over || this.#kept === this.#keptAcked) return;
    const before = this.#received - this.#keptAcked;
    this.#keptAcked = this.#kept;
    this.#table.countReceived(before, this.#received - this.#keptAcked);
    this.#table.offset(FrameType.ack, streamOf(this.id, Channel.output), this.#keptAcked);
  }

  /** Sends the RELEASE. For the table. */
  release(): void {
    if (this.#releasing) return;
    this.#releasing = true;
    if (this.#endDue) this.#table.offset(FrameType.eof, streamOf(this.id, Channel.input), this.#sent);
    this.#table.request(FrameType.release, this.id);
  }

  /** What can be sent again may be sent. For the table. */
  wake(): void {
    if (!this.#wantsToWrite || this.#over) return;
    if (this.#table.room(this.unacknowledged) <= 0) {
      this.#table.waitForOutbox(this);
      return;
    }
    this.#wantsToWrite = false;
    this.#tell(() => this.#events.writable());
  }

  /** Takes DATA. @throws `agent_protocol_violation`. */
  data(bytes: Uint8Array, offset: number): void {
    this.#mustStand("data");
    if (this.#over) return;
    if (offset !== this.#received) {
      throw violation(`connection ${this.id} continues at offset ${offset}, ${this.#received} was to come`);
    }
    if (this.#ended) throw violation(`connection ${this.id} goes on after its end at ${offset}`);
    const before = this.#received - this.#keptAcked;
    this.#received += bytes.length;
    this.#awaited = false;
    this.#table.countReceived(before, before + bytes.length);
    if (bytes.length > 0) this.#tell(() => this.#events.data(bytes));
  }

  /** Takes an ACK. @throws `agent_protocol_violation`. */
  ack(offset: number): void {
    this.#mustStand("an acknowledgement");
    if (offset < this.#acked || offset > this.#sent) {
      throw violation(
        `connection ${this.id}: ${offset} is acknowledged; between ${this.#acked} and ${this.#sent} were sent`,
      );
    }
    if (this.#over) return;
    const before = this.unacknowledged;
    this.#acked = offset;
    this.#table.countSent(before, this.unacknowledged);
    this.wake();
  }

  /** Takes the end of the guest's direction. @throws `agent_protocol_violation`. */
  eof(offset: number): void {
    this.#mustStand("an end");
    if (this.#over) return;
    if (offset !== this.#received || this.#ended) {
      throw violation(`connection ${this.id} ends at ${offset}, but ${this.#received} bytes came`);
    }
    this.#ended = true;
    this.#awaited = false;
    this.#tell(() => this.#events.end());
  }

  /** Takes the EXIT. @throws `agent_protocol_violation`. */
  exit({ errno, outputEnd, errorEnd }: ExitReport): void {
    this.#mustStand("an exit");
    if (this.#exited) throw violation(`connection ${this.id} ended twice`);
    this.#exited = true;
    if (this.#over) return;
    if (outputEnd !== this.#received || errorEnd !== 0) {
      throw violation(`connection ${this.id} ended after ${outputEnd} bytes, but ${this.#received} came`);
    }
    if (errno === 0 && !(this.#ended && this.#endSent))
      throw violation(`connection ${this.id} ended before its directions`);
    this.#finish(errno === 0 ? { reason: "finished" } : { reason: "reset", error: resetFailure(this.#target, errno) });
    this.#table.releaseSoon(this);
  }

  /** Takes the answer to CONNECT or RELEASE. @returns whether the place is free now. @throws `agent_protocol_violation`. */
  reply(errno: number): boolean {
    if (this.#connecting) {
      this.#connecting = false;
      if (errno === 0) {
        if (!this.#over) this.#connected.resolve();
        return false;
      }
      this.#finish({ reason: "refused", error: connectFailure(this.#target, errno) });
      return !this.#releasing;
    }
    if (!this.#releasing) throw violation(`it answered connection ${this.id}, which asked nothing`);
    return true;
  }

  /** The connection to the agent is gone. */
  lost(error: MayflyError): void {
    this.#releasing = true;
    this.#finish({ reason: "lost", error });
  }

  #mustStand(what: string): void {
    if (this.#connecting) throw violation(`it sent ${what} of connection ${this.id} before it stood`);
  }

  /** An owner that throws loses this connection and no other. */
  #tell(call: () => void): void {
    try {
      call();
    } catch (error) {
      this.#finish({ reason: "lost", error: this.#table.ownerFailed(error) });
      this.release();
    }
  }

  #finish(end: TcpEnd): void {
    if (this.#over) return;
    this.#over = true;
    this.#table.countSent(this.unacknowledged, 0);
    this.#table.countReceived(this.#received - this.#keptAcked, 0);
    if (end.error !== undefined || this.#connecting) this.#connected.reject(end.error ?? droppedFailure(this.#target));
    this.#closed.resolve(end);
  }
}

/** The place of a connection in the agent's table. */
export function placeOf(id: number): number {
  return id % MAX_CONNECTIONS;
}
