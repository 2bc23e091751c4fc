/** A stream connection over a unix socket or TCP: bytes in by callback, bytes out with back-pressure. The one place that handles short writes. */
import type { Socket, SocketHandler } from "bun";
import { MayflyError } from "../contract/errors.ts";
import type { Deadline } from "./deadline.ts";

/** What a channel tells its owner. */
export interface ChannelEvents {
  /** Bytes arrived. The chunk is only valid during the call unless copied. */
  data(chunk: Uint8Array): void;
  /** The connection is gone, once; `cause` is set when it broke. */
  closed(cause: Error | undefined): void;
}

/** A connected byte stream. */
export interface ByteChannel {
  /** Queues bytes in order. @returns whether the queue is empty (all handed to the kernel). */
  write(bytes: Uint8Array): boolean;
  /** Resolves when everything queued has been handed to the kernel; rejects when the connection goes first. */
  drained(): Promise<void>;
  /** Stops and restarts the delivery of data. */
  pause(): void;
  resume(): void;
  /** Closes at once; what is queued is lost. `closed` is still called. */
  close(): void;
}

class SocketChannel implements ByteChannel {
  #socket: Socket<undefined> | undefined;
  #queue: Uint8Array[] = [];
  #waiters: { resolve: () => void; reject: (error: Error) => void }[] = [];
  #closed = false;

  constructor(
    readonly name: string,
    readonly events: ChannelEvents,
  ) {}

  attach(socket: Socket<undefined>): void {
    this.#socket = socket;
  }

  write(bytes: Uint8Array): boolean {
    if (this.#closed || this.#socket === undefined) return false;
    if (this.#queue.length > 0) {
      this.#queue.push(new Uint8Array(bytes)); // a copy: slice of a Buffer is a view
      return false;
    }
    const written = Math.max(0, this.#socket.write(bytes));
    if (written === bytes.length) return true;
    this.#queue.push(new Uint8Array(bytes.subarray(written)));
    return false;
  }

  flush(): void {
    while (this.#socket !== undefined) {
      const head = this.#queue[0];
      if (head === undefined) break;
      const written = Math.max(0, this.#socket.write(head));
      if (written < head.length) {
        this.#queue[0] = head.subarray(written);
        return;
      }
      this.#queue.shift();
    }
    for (const waiter of this.#waiters.splice(0)) waiter.resolve();
  }

  drained(): Promise<void> {
    if (this.#closed)
      return Promise.reject(new MayflyError("connection_failed", `The connection to ${this.name} is closed`));
    if (this.#queue.length === 0) return Promise.resolve();
    return new Promise((resolve, reject) => this.#waiters.push({ resolve, reject }));
  }

  pause(): void {
    this.#socket?.pause();
  }

  resume(): void {
    this.#socket?.resume();
  }

  close(): void {
    this.#socket?.terminate();
    this.end(undefined);
  }

  end(cause: Error | undefined): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#queue = [];
    const error = cause ?? new MayflyError("cancelled", `The connection to ${this.name} was closed`);
    for (const waiter of this.#waiters.splice(0)) waiter.reject(error);
    this.events.closed(cause);
  }
}

/**
 * Connects to a listening unix stream socket. A full backlog (ECONNREFUSED or EAGAIN) fails like a missing listener: our
 * sockets are listening before their path is known to anyone and take one connection each.
 * @throws `connection_failed` when nobody listens (its cause has the system's `code`), `deadline_exceeded` at the deadline.
 */
export function connectUnix(path: string, events: ChannelEvents, deadline: Deadline): Promise<ByteChannel> {
  return connectTo({ unix: path }, path, events, deadline);
}

/** Connects to a TCP port, with TLS if asked. @throws as {@link connectUnix}. */
export function connectTcp(
  address: { hostname: string; port: number; tls: boolean },
  events: ChannelEvents,
  deadline: Deadline,
): Promise<ByteChannel> {
  return connectTo(address, `${address.hostname}:${address.port}`, events, deadline);
}

async function connectTo(
  address: { unix: string } | { hostname: string; port: number; tls: boolean },
  name: string,
  events: ChannelEvents,
  deadline: Deadline,
): Promise<ByteChannel> {
  const channel = new SocketChannel(name, events);
  const socket: SocketHandler<undefined> = {
    binaryType: "uint8array",
    open: (opened) => channel.attach(opened),
    data: (_socket, chunk) => events.data(chunk),
    drain: () => channel.flush(),
    close: (_socket, error) => channel.end(error instanceof Error ? error : undefined),
    error: (_socket, error) => channel.end(error),
  };
  const connecting =
    "unix" in address
      ? Bun.connect<undefined>({ unix: address.unix, data: undefined, socket })
      : Bun.connect<undefined>({ ...address, data: undefined, socket });
  try {
    channel.attach(await deadline.race(connecting, `the connection to ${name}`));
    return channel;
  } catch (error) {
    connecting.then(
      (connected) => connected.terminate(),
      () => undefined,
    );
    if (error instanceof MayflyError) throw error;
    throw new MayflyError("connection_failed", `Cannot connect to ${name}: ${describe(error)}`, {
      cause: error,
      details: { path: name },
    });
  }
}

function describe(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
