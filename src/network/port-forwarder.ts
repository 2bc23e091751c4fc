/**
 * A TCP port of the host whose connections go to a port inside a VM. Knows nothing of agents: it is given a function that connects.
 */
import { listenTcp, type TcpListener, type TcpPeer, type TcpPeerEvents } from "../sys/tcp-listener.ts";
import { ForwardedConnection, type GuestEvents, type GuestStream, type HeldBudget } from "./forwarded-connection.ts";

/** Connects to a port inside the guest. May throw: then the client's connection is reset. */
export type GuestConnector = (target: { port: number; address?: string }, events: GuestEvents) => GuestStream;

/** Which ports are joined. */
export interface Forwarding {
  /** Numeric address of the host. */
  address: string;
  /** Port of the host; 0 lets the system choose. */
  port: number;
  guestPort: number;
  /** Numeric address inside the guest; absent: 127.0.0.1, then ::1. */
  guestAddress?: string;
}

/** What may be asked of a forwarder besides. */
export interface ForwarderOptions {
  /**
   * Called for each connection before the guest is connected to. When it returns a promise, the connection waits for it; when it throws or
   * rejects, the connection is reset.
   */
  onConnection?: (client: { address: string; port: number }) => void | Promise<void>;
  /** Bytes from clients that wait for the guest, over all connections; 64 MiB. A connection that would need more is reset. */
  heldLimitBytes?: number;
}

const HELD_LIMIT_BYTES = 64 * 1024 * 1024;

/** Forwards one port until it is closed. */
export class PortForwarder implements Disposable {
  readonly address: string;
  /** The host's port: the one that was chosen, if 0 was asked for. */
  readonly port: number;
  readonly guestPort: number;
  readonly #connect: (events: GuestEvents) => GuestStream;
  readonly #onConnection: ForwarderOptions["onConnection"];
  readonly #budget: HeldBudget;
  readonly #connections = new Set<ForwardedConnection>();
  readonly #listener: TcpListener;
  #closed = false;

  /**
   * Listens at once.
   * @throws `port_in_use`, `invalid_argument` for an address that this host does not have, `system_call_failed`.
   */
  constructor(forwarding: Forwarding, connect: GuestConnector, options: ForwarderOptions = {}) {
    const { address, port, guestPort, guestAddress } = forwarding;
    const target = { port: guestPort, ...(guestAddress === undefined ? {} : { address: guestAddress }) };
    this.#connect = (events) => connect(target, events);
    this.#onConnection = options.onConnection;
    this.#budget = { leftBytes: options.heldLimitBytes ?? HELD_LIMIT_BYTES };
    this.address = address;
    this.guestPort = guestPort;
    this.#listener = listenTcp({ address, port }, (peer) => this.#accept(peer));
    this.port = this.#listener.port;
  }

  /** Connections that are open. */
  get connections(): number {
    return this.#connections.size;
  }

  #accept(peer: TcpPeer): TcpPeerEvents {
    const connection = new ForwardedConnection(peer, this.#budget, () => this.#connections.delete(connection));
    this.#connections.add(connection);
    try {
      const allowed = this.#onConnection?.({ address: peer.remoteAddress, port: peer.remotePort });
      if (allowed === undefined) connection.joinWithFirstBytes(this.#connect);
      else connection.joinAfter(allowed, this.#connect);
    } catch {
      connection.reset();
    }
    return connection.clientEvents;
  }

  /** Listens no more and resets what is open. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#listener.close();
    for (const connection of [...this.#connections]) connection.reset();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
