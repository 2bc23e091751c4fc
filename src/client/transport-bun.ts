/** The transport on Bun: its `fetch`, which knows unix sockets, and Mayfly's own WebSocket. */
import { MayflyError } from "../contract/errors.ts";
import { type ByteChannel, type ChannelEvents, connectTcp, connectUnix } from "../sys/channel.ts";
import { Deadline } from "../sys/deadline.ts";
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
import { WebSocketClient } from "./websocket.ts";

const CONNECT_LIMIT_MS = 10_000;

/** Makes the transport; nothing is connected before it is used. */
export function bunTransport(target: Target): Transport {
  const headers: Record<string, string> = target.token === undefined ? {} : { authorization: `Bearer ${target.token}` };
  return {
    request: (request) => fetchFrom(target, headers, request),
    openSocket: (path, events) => openSocket(target, headers, path, events),
    close: () => Promise.resolve(),
  };
}

async function fetchFrom(
  target: Target,
  headers: Record<string, string>,
  request: TransportRequest,
): Promise<TransportResponse> {
  const { address } = target;
  const { method, path, body, signal } = request;
  const init: BunFetchRequestInit = { method, headers: { ...headers, ...request.headers } };
  if (body !== undefined) init.body = typeof body === "string" || body instanceof Uint8Array ? body : streamOf(body);
  if (signal !== undefined) init.signal = signal;
  if ("socketPath" in address) init.unix = address.socketPath;
  const url = "socketPath" in address ? `http://mayfly${path}` : new URL(path, address.url).href;
  try {
    const response = await fetch(url, init);
    return {
      status: response.status,
      header: (name) => response.headers.get(name) ?? undefined,
      ...wholeBody(address, request, {
        text: () => response.text(),
        chunks: () => response.body ?? emptyBody(),
      }),
    };
  } catch (error) {
    if (signal?.aborted) throw new MayflyError("cancelled", `Cancelled: ${method} ${path}`);
    throw unreachable(address, error);
  }
}

function streamOf(chunks: AsyncIterable<Uint8Array>): ReadableStream<Uint8Array> {
  const iterator = chunks[Symbol.asyncIterator]();
  return new ReadableStream({
    async pull(controller) {
      const { done, value } = await iterator.next();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    async cancel() {
      await iterator.return?.();
    },
  });
}

async function* emptyBody(): AsyncGenerator<Uint8Array> {}

async function openSocket(
  target: Target,
  headers: Record<string, string>,
  path: string,
  events: SocketEvents,
): Promise<MessageSocket> {
  const { address } = target;
  const host = "socketPath" in address ? "mayfly" : address.url.host;
  const client = new WebSocketClient({ path, host, headers, mask: !("socketPath" in address) }, events);
  const channelEvents: ChannelEvents = {
    data: (chunk) => client.receive(chunk),
    closed: (cause) => client.channelClosed(cause),
  };
  const deadline = Deadline.after(CONNECT_LIMIT_MS);
  const channel = await connect(target, channelEvents, deadline);
  try {
    await deadline.race(client.open(channel), `the stream ${path}`);
    return client;
  } catch (error) {
    channel.close();
    throw error instanceof MayflyError ? error : unreachable(address, error);
  }
}

async function connect({ address }: Target, events: ChannelEvents, deadline: Deadline): Promise<ByteChannel> {
  try {
    if ("socketPath" in address) return await connectUnix(address.socketPath, events, deadline);
    const { hostname, port, protocol } = address.url;
    const tls = protocol === "https:";
    return await connectTcp({ hostname, port: port === "" ? (tls ? 443 : 80) : Number(port), tls }, events, deadline);
  } catch (error) {
    throw unreachable(address, error instanceof Error && error.cause !== undefined ? error.cause : error);
  }
}
