/** The client of the scenario `ports`, the same for both networks: small HTTP requests, and bytes in bulk. */
import { MayflyError } from "../../src/contract/errors.ts";
import { type Deadline, nowMs } from "../../src/sys/deadline.ts";

const KEPT_REQUEST = Buffer.from("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n");
const LAST_REQUEST = Buffer.from("GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
const STATUS_LINE = Buffer.from("HTTP/1.1 200 OK\r\n");
const BODY = Buffer.from("\r\n\r\nfrom a guest.\n");
/** Bytes that one write offers. */
const CHUNK_BYTES = 256 * 1024;

/** How requests are sent. */
export interface HttpLoad {
  port: number;
  /** Connections at once. */
  connections: number;
  /** Whether a connection takes one request after another, or one alone. */
  keepAlive: boolean;
  /** How long new requests are sent. */
  lengthMs: number;
}

/**
 * Sends requests for a while, on each connection the next when the answer to the last is there. Connections that are kept have been made
 * before, one after another, and have answered once: whoever listens with a short queue is not asked by all at once.
 * @returns answers that came in that time, and how long it was.
 */
export async function sendRequests(load: HttpLoad, deadline: Deadline): Promise<{ count: number; tookMs: number }> {
  const traffic = new RequestTraffic(load);
  const all = traffic.run();
  all.catch(() => undefined);
  try {
    return await deadline.race(all, "the answers to a benchmark's requests");
  } finally {
    traffic.end();
  }
}

/** Requests to one port. */
class RequestTraffic {
  #count = 0;
  #isCounting = false;
  readonly #open = new Set<Bun.Socket>();
  readonly #broken = Promise.withResolvers<never>();

  constructor(readonly load: HttpLoad) {
    this.#broken.promise.catch(() => undefined);
  }

  async run(): Promise<{ count: number; tookMs: number }> {
    const { connections, keepAlive, lengthMs } = this.load;
    const kept: Bun.Socket[] = [];
    for (let index = 0; keepAlive && index < connections; index += 1) kept.push(await this.#keep());
    const startedMs = nowMs();
    this.#isCounting = true;
    for (const socket of kept) socket.write(KEPT_REQUEST);
    for (let index = 0; !keepAlive && index < connections; index += 1) this.#askAnew();
    await Promise.race([this.#broken.promise, new Promise((resolve) => setTimeout(resolve, lengthMs))]);
    this.#isCounting = false;
    return { count: this.#count, tookMs: nowMs() - startedMs };
  }

  /** Breaks what is open. */
  end(): void {
    this.#isCounting = false;
    for (const socket of [...this.#open]) socket.terminate();
  }

  /** @returns a connection that has answered once. */
  #keep(): Promise<Bun.Socket> {
    return new Promise((resolve) => {
      this.#connect(KEPT_REQUEST, (socket) => {
        if (this.#isCounting) socket.write(KEPT_REQUEST);
        resolve(socket);
      });
    });
  }

  #askAnew(): void {
    this.#connect(LAST_REQUEST, (socket) => {
      this.#open.delete(socket);
      socket.end();
      if (this.#isCounting) this.#askAnew();
    });
  }

  #connect(request: Uint8Array, answered: (socket: Bun.Socket) => void): void {
    let received: Buffer = Buffer.alloc(0);
    const lost = (why: string) => {
      this.#broken.reject(new MayflyError("internal", `A benchmark's connection broke: ${why}`));
    };
    const socket = {
      open: (to: Bun.Socket) => {
        this.#open.add(to);
        to.write(request);
      },
      data: (from: Bun.Socket, chunk: Buffer) => {
        received = Buffer.concat([received, chunk]);
        if (!received.includes(BODY)) return;
        if (!received.subarray(0, STATUS_LINE.length).equals(STATUS_LINE)) lost("an answer is not 200");
        received = Buffer.alloc(0);
        if (this.#isCounting) this.#count += 1;
        answered(from);
      },
      close: (from: Bun.Socket) => {
        if (this.#open.delete(from) && this.#isCounting) lost("it was closed before the answer");
      },
      error: (_: Bun.Socket, error: Error) => lost(error.message),
      connectError: (_: Bun.Socket, error: Error) => lost(error.message),
    };
    Bun.connect({ hostname: "127.0.0.1", port: this.load.port, socket }).catch((error: unknown) => lost(String(error)));
  }
}

/** Has the guest send so many bytes over one connection. @returns the milliseconds from the connection to the last byte. */
export async function takeBytes(port: number, byteCount: number, deadline: Deadline): Promise<number> {
  let left = byteCount;
  return transfer(port, deadline, {
    open: (to) => void to.write(`get ${byteCount}\n`),
    data(chunk) {
      left -= chunk.length;
      return left <= 0;
    },
  });
}

/** Sends the guest so many bytes over one connection. @returns the milliseconds from the connection to the guest's word that it has all. */
export async function giveBytes(port: number, byteCount: number, deadline: Deadline): Promise<number> {
  const chunk = Buffer.alloc(CHUNK_BYTES, "x");
  const order = Buffer.from(`put ${byteCount}\n`);
  let [orderLeft, left] = [order.length, byteCount];
  const send = (to: Bun.Socket) => {
    while (orderLeft > 0 || left > 0) {
      const offered = orderLeft > 0 ? order.subarray(-orderLeft) : chunk.subarray(0, left);
      const taken = Math.max(0, to.write(offered));
      if (orderLeft > 0) orderLeft -= taken;
      else left -= taken;
      if (taken < offered.length) return;
    }
  };
  return transfer(port, deadline, { open: send, drain: send, data: () => true });
}

interface TransferEvents {
  open(to: Bun.Socket): void;
  drain?(to: Bun.Socket): void;
  /** @returns whether that was the last. */
  data(chunk: Buffer): boolean;
}

async function transfer(port: number, deadline: Deadline, events: TransferEvents): Promise<number> {
  const startedMs = nowMs();
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  const lost = (why: string) => reject(new MayflyError("internal", `A benchmark's stream broke: ${why}`));
  const socket = {
    open: (to: Bun.Socket) => events.open(to),
    drain: (to: Bun.Socket) => events.drain?.(to),
    data(from: Bun.Socket, chunk: Buffer) {
      if (!events.data(chunk)) return;
      resolve(nowMs() - startedMs);
      from.end();
    },
    close: () => lost("it was closed too early"),
    error: (_: Bun.Socket, error: Error) => lost(error.message),
    connectError: (_: Bun.Socket, error: Error) => lost(error.message),
  };
  Bun.connect({ hostname: "127.0.0.1", port, socket }).catch((error: unknown) => lost(String(error)));
  return deadline.race(promise, "the bytes of a benchmark's stream");
}
