/** One connection of a client's, joined to one into the guest: bytes, ends and resets go both ways, each at the pace of its reader. */
import { HeldBytes } from "../sys/held-bytes.ts";
import type { TcpPeer, TcpPeerEvents } from "../sys/tcp-listener.ts";

/** What a connection into the guest tells its owner. */
export interface GuestEvents {
  /** Bytes from the guest, valid during the call; each is given back by {@link GuestStream.consumed}. */
  data(chunk: Uint8Array): void;
  /** The guest sends nothing more. */
  end(): void;
  /** {@link GuestStream.write} takes bytes again. */
  writable(): void;
}

/** A connection into the guest. It may be written to at once, before it stands. */
export interface GuestStream {
  /** How it ended: `finished` when both directions did; anything else breaks the client's connection. */
  readonly closed: Promise<{ reason: string }>;
  /** Sends bytes. @returns how many were taken; {@link GuestEvents.writable} tells when the rest may be offered. */
  write(bytes: Uint8Array): number;
  end(): void;
  reset(): void;
  /** Bytes were passed on: the guest may send as many more. */
  consumed(byteCount: number): void;
}

/** What clients' bytes that wait for guests may still take, over several connections. */
export interface HeldBudget {
  leftBytes: number;
}

/** How long a new connection waits for the client's first bytes, in milliseconds. */
const FIRST_BYTES_MS = 1;

const nothing = (): void => undefined;

/** The pair. The guest's side is missing until {@link join}. */
export class ForwardedConnection {
  /** For whoever accepted the client. */
  readonly clientEvents: TcpPeerEvents = {
    data: (chunk) => this.#fromClient(chunk),
    end: () => this.#clientEnd(),
    flushed: (byteCount) => this.#guest?.consumed(byteCount),
    closed: (reset) => this.#clientClosed(reset),
  };
  readonly #peer: TcpPeer;
  readonly #budget: HeldBudget;
  readonly #onClosed: () => void;
  /** The client's bytes that the guest has not taken. */
  readonly #held = new HeldBytes();
  #guest: GuestStream | undefined;
  #joinNow = nothing;
  #guestOver = false;
  #clientEnded = false;
  #clientGone = false;
  #over = false;

  /** @param onClosed is called once, when nothing is left of it. */
  constructor(peer: TcpPeer, budget: HeldBudget, onClosed: () => void) {
    this.#peer = peer;
    this.#budget = budget;
    this.#onClosed = onClosed;
  }

  /** Joins it to the guest, unless the client has gone meanwhile. @throws what `connect` does. */
  join(connect: (events: GuestEvents) => GuestStream): void {
    if (this.#over) return;
    const guest = connect({
      data: (chunk) => guest.consumed(this.#peer.write(chunk)),
      end: () => this.#peer.end(),
      writable: () => this.#toGuest(),
    });
    this.#guest = guest;
    guest.closed.then(({ reason }) => this.#guestClosed(reason));
    this.#toGuest();
  }

  /**
   * Joins it with the client's first bytes, or its end, or after {@link FIRST_BYTES_MS}: a client that speaks first is the rule, and its
   * bytes then go with the request to connect, so that the guest wakes up once for both. Whatever `connect` throws resets it.
   */
  joinWithFirstBytes(connect: (events: GuestEvents) => GuestStream): void {
    const timer = setTimeout(() => this.#joinNow(), FIRST_BYTES_MS);
    this.#joinNow = () => {
      clearTimeout(timer);
      this.#joinNow = nothing;
      try {
        this.join(connect);
      } catch {
        this.reset();
      }
    };
  }

  /** Joins it once `allowed` has resolved, and reads no more of the client's until then. Whatever rejects resets it. */
  joinAfter(allowed: Promise<void>, connect: (events: GuestEvents) => GuestStream): void {
    this.#peer.pause();
    allowed.then(() => this.join(connect)).catch(() => this.reset());
  }

  /** Breaks both connections. */
  reset(): void {
    this.#peer.reset();
    this.#guest?.reset();
    this.#finish();
  }

  #fromClient(chunk: Uint8Array): void {
    this.#joinNow();
    if (this.#over) return;
    const taken = this.#guest === undefined || this.#held.length > 0 ? 0 : this.#guest.write(chunk);
    if (taken === chunk.length) return;
    const rest = chunk.subarray(taken);
    if (rest.length > this.#budget.leftBytes) {
      this.reset();
      return;
    }
    this.#budget.leftBytes -= rest.length;
    this.#held.add(rest);
    this.#peer.pause();
  }

  /** Offers what is held; once nothing is, the client is read on. */
  #toGuest(): void {
    const guest = this.#guest;
    if (guest === undefined || this.#over) return;
    if (this.#held.length > 0) {
      const taken = guest.write(this.#held.peek());
      this.#held.take(taken);
      this.#budget.leftBytes += taken;
      if (this.#held.length > 0) return;
    }
    if (this.#clientEnded) guest.end();
    else this.#peer.resume();
  }

  #clientEnd(): void {
    this.#joinNow();
    this.#clientEnded = true;
    if (this.#held.length === 0) this.#guest?.end();
  }

  #clientClosed(reset: boolean): void {
    this.#clientGone = true;
    if (reset) this.#guest?.reset();
    if (reset || this.#guestOver) this.#finish();
  }

  #guestClosed(reason: string): void {
    this.#guestOver = true;
    if (this.#over) return;
    if (this.#clientGone) this.#finish();
    else if (reason === "reset") this.#peer.resetWhenFlushed();
    else if (reason !== "finished") this.#peer.reset();
  }

  #finish(): void {
    if (this.#over) return;
    this.#over = true;
    // Its timer goes; nothing is joined any more.
    this.#joinNow();
    this.#budget.leftBytes += this.#held.length;
    this.#held.clear();
    this.#onClosed();
  }
}
