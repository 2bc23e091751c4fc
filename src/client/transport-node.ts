/** The transport on Node: undici for requests and ws for WebSockets, as Node's own know no unix sockets. */
import { Readable } from "node:stream";
import { type Dispatcher, Pool } from "undici";
import { WebSocket } from "ws";
import { MayflyError } from "../contract/errors.ts";
import { deferred } from "./deferred.ts";
import { errorOfAnswer } from "./problem.ts";
import {
  type MessageSocket,
  type SocketEvents,
  type Target,
  type Transport,
  type TransportRequest,
  type TransportResponse,
  unreachable,
  wholeBody,
} from "./transport.ts";

/** Makes the transport; nothing is connected before it is used. */
export function nodeTransport(target: Target): Transport {
  const { address } = target;
  const headers: Record<string, string> = target.token === undefined ? {} : { authorization: `Bearer ${target.token}` };
  const noTimeLimit = { headersTimeout: 0, bodyTimeout: 0 };
  const pool =
    "socketPath" in address
      ? new Pool("http://mayfly", { socketPath: address.socketPath, ...noTimeLimit })
      : new Pool(address.url.origin, noTimeLimit);
  return {
    request: (request) => send(pool, target, headers, request),
    openSocket: (path, events) => openSocket(target, headers, path, events),
    close: () => pool.destroy(),
  };
}

async function send(
  pool: Pool,
  { address }: Target,
  headers: Record<string, string>,
  request: TransportRequest,
): Promise<TransportResponse> {
  const { method, path, body, signal } = request;
  const options: Dispatcher.RequestOptions = { method, path, headers: { ...headers, ...request.headers } };
  if (body !== undefined)
    options.body = typeof body === "string" || body instanceof Uint8Array ? body : Readable.from(body);
  if (signal !== undefined) options.signal = signal;
  try {
    const response = await pool.request(options);
    return {
      status: response.statusCode,
      header: (name) => [response.headers[name]].flat()[0],
      ...wholeBody(address, request, { text: () => response.body.text(), chunks: () => response.body }),
    };
  } catch (error) {
    if (signal?.aborted) throw new MayflyError("cancelled", `Cancelled: ${method} ${path}`);
    throw unreachable(address, error);
  }
}

function openSocket(
  { address }: Target,
  headers: Record<string, string>,
  path: string,
  events: SocketEvents,
): Promise<MessageSocket> {
  const url =
    "socketPath" in address
      ? `ws+unix://${address.socketPath}:${path}`
      : new URL(path, address.url).href.replace(/^http/, "ws");
  const socket = new WebSocket(url, {
    headers,
    perMessageDeflate: false,
    maxPayload: 16 << 20,
    handshakeTimeout: 10_000,
  });
  const { promise, resolve, reject } = deferred<MessageSocket>();
  let open = false;
  let cause: Error | undefined;
  socket.on("unexpected-response", (_request, response) => {
    const parts: Buffer[] = [];
    response.on("data", (part: Buffer) => parts.push(part));
    response.on("end", () => {
      reject(errorOfAnswer(response.statusCode ?? 0, Buffer.concat(parts).toString(), `open ${path}`));
      socket.terminate();
    });
  });
  socket.on("error", (error) => {
    cause = unreachable(address, error);
    if (!open) reject(cause);
  });
  socket.on("open", () => {
    open = true;
    resolve(messageSocket(socket));
  });
  socket.on("message", (data, isBinary) => {
    const bytes = Array.isArray(data) ? Buffer.concat(data) : new Uint8Array(data);
    if (isBinary) events.binary(bytes);
    else events.text(new TextDecoder().decode(bytes));
  });
  socket.on("close", (code) => {
    if (!open) return;
    const inOrder = code === 1000 || code === 1005;
    events.closed(
      cause ?? (inOrder ? undefined : new MayflyError("connection_failed", `The stream ended with code ${code}`)),
    );
  });
  return promise;
}

function messageSocket(socket: WebSocket): MessageSocket {
  let last: Promise<void> = Promise.resolve();
  const send = (data: string | Uint8Array) => {
    last = new Promise((resolve, reject) => socket.send(data, (error) => (error ? reject(error) : resolve())));
    last.catch(() => undefined);
  };
  return {
    text: send,
    binary(channel, bytes) {
      const message = new Uint8Array(1 + bytes.length);
      message[0] = channel;
      message.set(bytes, 1);
      send(message);
    },
    drained: () => last,
    pause: () => socket.pause(),
    resume: () => socket.resume(),
    close: () => socket.close(1000),
  };
}
