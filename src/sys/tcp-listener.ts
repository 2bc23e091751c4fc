/** Listening on a TCP port of the host: connections with half-close, resets and back-pressure in both directions. */
import type { Socket, TCPSocketListener } from "bun";
import { MayflyError } from "../contract/errors.ts";
import { HeldBytes } from "./held-bytes.ts";
import { extendBacklog } from "./libc.ts";
import { portHolder } from "./port-holder.ts";

/** What an accepted connection tells its owner. */
export interface TcpPeerEvents {
  /** Bytes arrived. The chunk is valid during the call. Some may still come after {@link TcpPeer.pause}. */
  data(chunk: Uint8Array): void;
  /** The other side sends nothing more; it may still read. */
  end(): void;
  /** Bytes that {@link TcpPeer.write} had to hold were handed to the kernel. */
  flushed(byteCount: number): void;
  /** It is over, once; `reset` unless both directions had ended. */
  closed(reset: boolean): void;
}

/** An accepted connection. Nagle's algorithm is off. */
export interface TcpPeer {
  readonly remoteAddress: string;
  readonly remotePort: number;
  /** Sends bytes; what the kernel does not take is copied and held. @returns how many were handed to the kernel now. */
  write(bytes: Uint8Array): number;
  /** Ends this side's direction once everything held is handed to the kernel. */
  end(): void;
  /** Breaks the connection: the other side sees a reset. What is held is lost. */
  reset(): void;
  /** {@link reset}, once everything held is handed to the kernel. */
  resetWhenFlushed(): void;
  /** Stops and restarts the delivery of data. */
  pause(): void;
  resume(): void;
}

/** A port that is listened on. */
export interface TcpListener {
  readonly port: number;
  /** Accepts nothing more; connections that stand go on. */
  close(): void;
}

/** A silent peer whose host has gone is found out after so many seconds. */
const KEEP_ALIVE_MS = 60_000;
/** Connections that may wait to be accepted; the kernel has its own bound (net.core.somaxconn). */
const BACKLOG = 4096;

/**
 * Listens on a TCP port.
 * @param address numeric; an IPv6 one takes IPv6 connections alone.
 * @param port 0 lets the system choose.
 * @param accept takes each connection, and says who is told of what becomes of it.
 * @throws `port_in_use` naming the address, the port, and the process that has it if that can be told; `invalid_argument` for an address that
 * this host does not have; `system_call_failed`.
 */
export function listenTcp(
  { address, port }: { address: string; port: number },
  accept: (peer: TcpPeer) => TcpPeerEvents,
): TcpListener {
  let listener: TCPSocketListener<Accepted>;
  try {
    listener = Bun.listen<Accepted>({
      hostname: address,
      port,
      exclusive: true,
      allowHalfOpen: true,
      // An IPv4 and an IPv6 address are two places: whoever wants both listens twice.
      ...(address.includes(":") ? { ipv6Only: true } : {}),
      socket: {
        binaryType: "uint8array",
        open: (socket) => {
          socket.data = new Accepted(socket);
          socket.data.events = accept(socket.data);
        },
        data: ({ data }, chunk) => data.events?.data(chunk),
        end: ({ data }) => data.theirEnd(),
        drain: ({ data }) => data.flush(),
        close: ({ data }, error) => data?.gone(error !== undefined && error !== null),
        error: ({ data }) => data?.gone(true),
      },
    });
  } catch (error) {
    throw listenFailure(address, port, error);
  }
  extendBacklog(listener, BACKLOG);
  return { port: listener.port, close: () => listener.stop(false) };
}

function listenFailure(address: string, port: number, error: unknown): MayflyError {
  const cause = error instanceof Error ? error : new Error(String(error));
  const system = "code" in cause ? String(cause.code) : cause.message;
  const place = address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
  if (system === "EADDRINUSE") {
    const holder = portHolder(address, port);
    const who =
      holder === undefined ? "something else listens there" : `${holder.name} (pid ${holder.pid}) listens there`;
    return new MayflyError("port_in_use", `Cannot listen on ${place}: ${who}`, {
      details: { address, port, ...(holder === undefined ? {} : { holder: holder.name, pid: holder.pid }) },
    });
  }
  if (system === "EADDRNOTAVAIL") {
    return new MayflyError("invalid_argument", `Cannot listen on ${place}: this host does not have that address`, {
      cause,
    });
  }
  return new MayflyError("system_call_failed", `Cannot listen on ${place}: ${system}`, { cause });
}

class Accepted implements TcpPeer {
  events: TcpPeerEvents | undefined;
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly #socket: Socket<Accepted>;
  readonly #held = new HeldBytes();
  #theyEnded = false;
  #weEnd = false;
  #resetsWhenFlushed = false;
  #over = false;

  constructor(socket: Socket<Accepted>) {
    this.#socket = socket;
    this.remoteAddress = socket.remoteAddress;
    this.remotePort = socket.remotePort;
    socket.setNoDelay(true);
    socket.setKeepAlive(true, KEEP_ALIVE_MS);
  }

  write(bytes: Uint8Array): number {
    if (this.#over || this.#weEnd) return 0;
    const written = this.#held.length > 0 ? 0 : Math.max(0, this.#socket.write(bytes));
    if (written < bytes.length) this.#held.add(bytes.subarray(written));
    return written;
  }

  end(): void {
    if (this.#weEnd || this.#over) return;
    this.#weEnd = true;
    if (this.#held.length === 0) this.#shutDown();
  }

  reset(): void {
    if (this.#over) return;
    this.#held.clear();
    this.#socket.terminate();
    this.gone(true);
  }

  resetWhenFlushed(): void {
    if (this.#held.length === 0) this.reset();
    else this.#resetsWhenFlushed = true;
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  theirEnd(): void {
    if (this.#theyEnded || this.#over) return;
    this.#theyEnded = true;
    this.events?.end();
  }

  flush(): void {
    if (this.#held.length === 0 || this.#over) return;
    const written = Math.max(0, this.#socket.write(this.#held.peek()));
    if (written === 0) return;
    this.#held.take(written);
    this.events?.flushed(written);
    if (this.#held.length > 0 || this.#over) return;
    if (this.#resetsWhenFlushed) this.reset();
    else if (this.#weEnd) this.#shutDown();
  }

  gone(broken: boolean): void {
    if (this.#over) return;
    // Once this side has ended, Bun tells of the other's end as the close alone.
    if (!broken && this.#weEnd) this.theirEnd();
    this.#over = true;
    const complete = this.#weEnd && this.#theyEnded && this.#held.length === 0;
    this.#held.clear();
    this.events?.closed(broken || !complete);
  }

  /** `end` would close the whole socket while the other side still sends. */
  #shutDown(): void {
    if (this.#theyEnded) this.#socket.end();
    else this.#socket.shutdown();
  }
}
