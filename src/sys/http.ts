/** HTTP and WebSocket listeners (Bun.serve). Everything above speaks Request, Response and {@link MessageStream}. */
import type { Server, ServerWebSocket } from "bun";
import { MayflyError } from "../contract/errors.ts";
import { replaceListener } from "./adopted-listener.ts";

/** What became of a message: handed to the kernel, kept until the peer reads, or lost because too much was kept. */
export type SendResult = "sent" | "queued" | "dropped";

/** Our side of a WebSocket. */
export interface MessageStream {
  /** Sends a text or a binary message; binary ones are only read during the call. After the end it does nothing. */
  send(message: string | Uint8Array): SendResult;
  /** Resolves when little of what was queued is left, or when the stream has ended. */
  drained(): Promise<void>;
  /** Sends what is queued, then ends the stream with a status code of RFC 6455. */
  close(code: number, reason: string): void;
  readonly open: boolean;
  /** Bytes queued for the peer. */
  readonly queuedBytes: number;
}

/** What a stream tells its owner, in order; the next call may come before an earlier one's work is done. */
export interface StreamEvents {
  text(message: string): void;
  /** The bytes are the owner's to keep. */
  bytes(message: Uint8Array): void;
  /** The stream is gone, once. */
  closed(code: number): void;
}

/** Makes the owner of a new stream. */
export type StreamAcceptor = (stream: MessageStream) => StreamEvents;

/** Where to listen: a path to bind, a TCP address, or a socket that listens on a path already (see adopted-listener.ts). */
export type ListenAddress =
  | { unix: string }
  | { host: string; port: number }
  | { inherited: number; path: string; placeholder: string };

/** The connection of a request. */
export interface RequestConnection {
  /** Lets this request be silent for as long as it likes. On TCP others are cut after {@link TCP_SILENCE_LIMIT_S}. */
  allowSilence(): void;
}

/** Answers one request. @returns a Response, or an acceptor to turn the connection into a message stream. */
export type RequestListener = (request: Request, connection: RequestConnection) => Promise<Response | StreamAcceptor>;

/** A running listener. */
export interface HttpServer {
  /** e.g. `unix:/run/mayfly/mayfly.sock` or `127.0.0.1:7420`. */
  readonly address: string;
  /** TCP port, undefined on unix. */
  readonly port: number | undefined;
  /** Stops listening; with `force` open connections are cut. Resolves when all are gone. */
  stop(force: boolean): Promise<void>;
}

/** Longest message taken from a peer, in bytes: more than the largest argument list. */
const MESSAGE_LIMIT_BYTES = 4 << 20;
/** Most bytes queued for one peer. Owners wait for {@link MessageStream.drained}, so only a bug reaches it. */
const QUEUE_LIMIT_BYTES = 16 << 20;
/** {@link MessageStream.drained} resolves when no more than this is queued. */
const LOW_WATER_BYTES = 128 << 10;
/**
 * Seconds of silence after which a connection over TCP is cut, so that strangers cannot hold many open. A WebSocket is pinged before:
 * a dead peer is noticed by nothing else.
 */
const TCP_SILENCE_LIMIT_S = 120;
/** Longest body of a request: files of any size are streamed, so this is no limit; others are bounded by their routes. */
const BODY_LIMIT_BYTES = 2 ** 46;

interface Connection {
  readonly accept: StreamAcceptor;
  peer: Peer | undefined;
}

class Peer implements MessageStream {
  readonly #socket: ServerWebSocket<Connection>;
  #waiters: (() => void)[] = [];
  open = true;
  events: StreamEvents | undefined;

  constructor(socket: ServerWebSocket<Connection>) {
    this.#socket = socket;
  }

  get queuedBytes(): number {
    return this.open ? this.#socket.getBufferedAmount() : 0;
  }

  send(message: string | Uint8Array): SendResult {
    if (!this.open) return "sent";
    const result = typeof message === "string" ? this.#socket.sendText(message) : this.#socket.sendBinary(message);
    if (result === 0) return "dropped";
    return result < 0 ? "queued" : "sent";
  }

  drained(): Promise<void> {
    if (this.queuedBytes <= LOW_WATER_BYTES) return Promise.resolve();
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  close(code: number, reason: string): void {
    if (this.open) this.#socket.close(code, reason);
  }

  drain(): void {
    if (this.queuedBytes > LOW_WATER_BYTES) return;
    for (const resolve of this.#waiters.splice(0)) resolve();
  }

  end(code: number): void {
    this.open = false;
    for (const resolve of this.#waiters.splice(0)) resolve();
    this.events?.closed(code);
  }
}

/**
 * Listens for HTTP/1.1 and WebSocket connections. On unix sockets they have no idle time limit: log and event streams are silent
 * for hours, and deadlines are the routes' own. (There Bun ignores a limit for single requests, so it has to be the listener's.)
 * @throws `connection_failed` when the address cannot be bound.
 */
export function serveHttp(address: ListenAddress, listener: RequestListener): HttpServer {
  const silenceLimitS = "host" in address ? TCP_SILENCE_LIMIT_S : 0;
  const options = serveOptions(listener, silenceLimitS);
  // Bun's types know no idle time limit on unix sockets, but Bun has one there, of 10 seconds.
  const unlimited: typeof options = Object.assign(options, { idleTimeout: silenceLimitS });
  const on = nameOf(address);
  try {
    const server =
      "host" in address
        ? Bun.serve<Connection>({ ...unlimited, hostname: address.host, port: address.port })
        : Bun.serve<Connection>({ ...unlimited, unix: "unix" in address ? address.unix : address.placeholder });
    if ("inherited" in address) replaceListener(address.placeholder, address.inherited);
    const port = "host" in address ? server.port : undefined;
    return {
      address: "host" in address ? nameOf({ host: address.host, port: port ?? address.port }) : on,
      port,
      stop: (force) => server.stop(force),
    };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new MayflyError("connection_failed", `Cannot listen on ${on}: ${reason}`, { cause: error });
  }
}

function nameOf(address: ListenAddress): string {
  if ("host" in address) return `${address.host.includes(":") ? `[${address.host}]` : address.host}:${address.port}`;
  return `unix:${"unix" in address ? address.unix : address.path}`;
}

function serveOptions(listener: RequestListener, silenceLimitS: number) {
  return {
    maxRequestBodySize: BODY_LIMIT_BYTES,
    development: false,
    async fetch(request: Request, server: Server<Connection>): Promise<Response | undefined> {
      const answer = await listener(request, { allowSilence: () => silenceLimitS > 0 && server.timeout(request, 0) });
      if (typeof answer !== "function") return answer;
      if (server.upgrade(request, { data: { accept: answer, peer: undefined } })) return undefined;
      return new Response("this address wants a WebSocket\n", { status: 426, headers: { upgrade: "websocket" } });
    },
    websocket: {
      idleTimeout: silenceLimitS,
      sendPings: silenceLimitS > 0,
      maxPayloadLength: MESSAGE_LIMIT_BYTES,
      backpressureLimit: QUEUE_LIMIT_BYTES,
      perMessageDeflate: false,
      binaryType: "uint8array" as const,
      open(socket: ServerWebSocket<Connection>) {
        const peer = new Peer(socket);
        socket.data.peer = peer;
        peer.events = socket.data.accept(peer);
      },
      message(socket: ServerWebSocket<Connection>, message: string | Uint8Array) {
        const events = socket.data.peer?.events;
        if (typeof message === "string") events?.text(message);
        else events?.bytes(message);
      },
      drain: (socket: ServerWebSocket<Connection>) => socket.data.peer?.drain(),
      close: (socket: ServerWebSocket<Connection>, code: number) => socket.data.peer?.end(code),
    },
  };
}

/** Asks a server on a unix socket with GET. @throws `connection_failed` when the answer is not a good one. */
export async function askOverUnix(socketPath: string, path: string): Promise<void> {
  const { status } = await fetch(`http://localhost${path}`, { unix: socketPath });
  if (status !== 200)
    throw new MayflyError("connection_failed", `${path} over ${socketPath} answers with HTTP ${status}, not 200`);
}
