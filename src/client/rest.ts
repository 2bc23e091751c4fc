/** Requests of the REST interface: JSON in and out, and errors as they were sent. */
import { errorOfAnswer } from "./problem.ts";
import type { Transport, TransportRequest, TransportResponse } from "./transport.ts";

/** Values of a query; what is undefined or false is left out. */
export type Query = Readonly<Record<string, string | number | boolean | undefined>>;

/** What most calls take besides their arguments. */
export interface CallOptions {
  /** Aborting it ends the request with `cancelled`. */
  signal?: AbortSignal;
}

/** Sends requests over a transport. Every method throws MayflyError `daemon_unreachable`, `cancelled`, and what the daemon answers. */
export class Rest {
  constructor(readonly transport: Transport) {}

  /** An answer that is JSON; its type is the contract's, which the daemon keeps. */
  async json<T>(method: TransportRequest["method"], path: string, options: RequestOptions = {}): Promise<T> {
    const response = await this.send(method, path, options);
    return JSON.parse(await response.text()) as T;
  }

  /** A request whose answer has no content. */
  async empty(method: TransportRequest["method"], path: string, options: RequestOptions = {}): Promise<void> {
    await (await this.send(method, path, options)).text();
  }

  /** A successful answer whose body is still to be read. */
  async send(
    method: TransportRequest["method"],
    path: string,
    options: RequestOptions = {},
  ): Promise<TransportResponse> {
    const { json, content, query, signal, headers = {} } = options;
    const request: TransportRequest = { method, path: `${path}${queryText(query)}`, headers };
    if (json !== undefined) {
      request.body = JSON.stringify(json);
      request.headers = { ...headers, "content-type": "application/json" };
    }
    if (content !== undefined) request.body = content;
    if (signal !== undefined) request.signal = signal;
    const response = await this.transport.request(request);
    if (response.status >= 200 && response.status < 300) return response;
    throw errorOfAnswer(response.status, await response.text(), `${method} ${path}`);
  }
}

/** What a request carries. */
export interface RequestOptions extends CallOptions {
  json?: unknown;
  /** A body as bytes. */
  content?: Uint8Array | AsyncIterable<Uint8Array>;
  query?: Query;
  headers?: Readonly<Record<string, string>>;
}

function queryText(query: Query = {}): string {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== false) parameters.set(name, String(value));
  }
  return parameters.size === 0 ? "" : `?${parameters}`;
}

/** A part of a path, escaped. */
export function segment(text: string): string {
  return encodeURIComponent(text);
}
