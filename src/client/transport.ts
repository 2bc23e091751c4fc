/** What the client needs of its runtime: HTTP requests and WebSockets to the daemon. One implementation for Bun, one for Node. */

import { MayflyError } from "../contract/errors.ts";

/** Where the daemon listens. */
export type Address = { socketPath: string } | { url: URL };

/** How to reach the daemon. */
export interface Target {
  address: Address;
  /** Bearer token; needed on TCP. */
  token: string | undefined;
}

/** A request, all of it decided. */
export interface TransportRequest {
  method: "GET" | "POST" | "PUT" | "DELETE";
  /** Path with its query, e.g. `/v1/vms?all=true`. */
  path: string;
  headers?: Readonly<Record<string, string>>;
  body?: string | Uint8Array | AsyncIterable<Uint8Array>;
  signal?: AbortSignal;
}

/** An answer whose body is still to be read. */
export interface TransportResponse {
  status: number;
  header(name: string): string | undefined;
  text(): Promise<string>;
  /** The body's chunks; leaving the loop early ends the request. */
  chunks(): AsyncIterable<Uint8Array>;
}

/** What a WebSocket tells its owner. */
export interface SocketEvents {
  text(message: string): void;
  /** The bytes are only valid during the call unless copied. */
  binary(message: Uint8Array): void;
  /** The connection is gone, once; `cause` is set when it broke. */
  closed(cause: Error | undefined): void;
}

/** A connected WebSocket. */
export interface MessageSocket {
  text(message: string): void;
  /** Sends one binary message: a byte, then the bytes. */
  binary(channel: number, bytes: Uint8Array): void;
  /** Resolves when everything sent has been handed on; rejects when the connection goes first. */
  drained(): Promise<void>;
  /** Stops and restarts the delivery of messages: the peer then has to wait. A few may still come after `pause`. */
  pause(): void;
  resume(): void;
  /** Closes the connection in order; `closed` is still called. */
  close(): void;
}

/** A way to reach the daemon. */
export interface Transport {
  /** @throws MayflyError `daemon_unreachable` (its `details.systemCode` is e.g. `ENOENT`), `cancelled`. */
  request(request: TransportRequest): Promise<TransportResponse>;
  /** @throws as `request`, and the daemon's own error if it refuses. */
  openSocket(path: string, events: SocketEvents): Promise<MessageSocket>;
  /** Ends kept connections. */
  close(): Promise<void>;
}

/** The daemon's address for a person. */
export function describeAddress(address: Address): string {
  return "socketPath" in address ? `unix://${address.socketPath}` : address.url.origin;
}

/** The error for a connection that was not made or that broke, whatever the runtime calls it. */
export function unreachable(address: Address, error: unknown): MayflyError {
  const systemCode = systemCodeOf(error);
  const reason = REASONS[systemCode ?? ""] ?? (error instanceof Error ? error.message : String(error));
  return new MayflyError("daemon_unreachable", `Cannot reach the daemon at ${describeAddress(address)}: ${reason}`, {
    cause: error,
    details: {
      ...(systemCode === undefined ? {} : { systemCode }),
      ...("socketPath" in address ? { path: address.socketPath } : {}),
    },
  });
}

/** A body as its runtime reads it. */
type Body = Pick<TransportResponse, "text" | "chunks">;

/**
 * A body whose reading fails in our words: `connection_failed` when it breaks off, since the daemon has ended or the way to it is gone;
 * `cancelled` when the request was.
 */
export function wholeBody(address: Address, { method, path, signal }: TransportRequest, body: Body): Body {
  const broken = (cause: unknown) =>
    signal?.aborted
      ? new MayflyError("cancelled", `Cancelled: ${method} ${path}`, { cause })
      : new MayflyError(
          "connection_failed",
          `The answer of the daemon at ${describeAddress(address)} broke off: it has ended, or the connection to it has`,
          { cause },
        );
  return {
    text: () =>
      body.text().catch((cause: unknown) => {
        throw broken(cause);
      }),
    async *chunks() {
      const chunks = body.chunks()[Symbol.asyncIterator]();
      let isOver = false;
      try {
        while (true) {
          const { done, value } = await chunks.next().catch((cause: unknown) => {
            isOver = true;
            throw broken(cause);
          });
          isOver = done === true;
          if (isOver) return;
          yield value;
        }
      } finally {
        if (!isOver) await chunks.return?.();
      }
    },
  };
}

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: "there is no such socket, so no daemon has been started",
  ECONNREFUSED: "nobody listens there",
  EACCES: "this user may not open the socket",
  ECONNRESET: "it ended before it answered",
};

/** Code of the system's error, e.g. `ENOENT`, of an error or of what caused it. */
function systemCodeOf(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  if ("code" in error && typeof error.code === "string" && /^E[A-Z]+$/.test(error.code)) return error.code;
  return systemCodeOf(error.cause);
}
