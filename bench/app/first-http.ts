/** The client of the scenario `app`: asks one port again and again until the first whole answer with status 200 is there. */
import { MayflyError } from "../../src/contract/errors.ts";
import { type Deadline, nowMs } from "../../src/sys/deadline.ts";

/**
 * Between two attempts, whatever is asked: so much of the time that has passed, and at least so many milliseconds. Short against what
 * is measured; a service that starts in a guest is slowed down by being asked a thousand times a second.
 */
const RETRY_SHARE = 0.02;
const RETRY_LEAST_MS = 0.5;
/** The runtime's timers are whole milliseconds. */
const TIMER_MS = 2;
const REQUEST = "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
const HEAD_END = Buffer.from("\r\n\r\n");
/** An answer is no larger than that. */
const MOST_BYTES = 1 << 20;

/** The first answer with status 200. */
export interface FirstAnswer {
  /** When its last byte was here, as {@link nowMs} counts. */
  atMs: number;
  body: string;
  /** Connections that were tried for it, this one included. */
  attempts: number;
}

/**
 * Connects to a port of this host until the first answer with status 200 has come to its last byte. A connection that is refused, or
 * that ends without such an answer, is followed by the next one after 2 % of the time since this was called, at least half a millisecond.
 * @throws `deadline_exceeded` with what the last attempt saw, `cancelled`.
 */
export async function firstAnswer(port: number, deadline: Deadline): Promise<FirstAnswer> {
  const startedMs = nowMs();
  let last = "nothing";
  for (let attempts = 1; ; attempts += 1) {
    if (deadline.remainingMs <= 0) {
      throw new MayflyError("deadline_exceeded", `Port ${port} gave no answer with status 200 in time, but ${last}`);
    }
    const seen = await deadline.race(attempt(port), `an answer of port ${port}`);
    if (typeof seen !== "string") return { ...seen, attempts };
    last = seen;
    await pauseFor(Math.max(RETRY_LEAST_MS, (nowMs() - startedMs) * RETRY_SHARE));
  }
}

const idle = new Int32Array(new SharedArrayBuffer(4));

/** Less than a timer can do is waited for standing still: nothing else is to be done in this process meanwhile. */
async function pauseFor(ms: number): Promise<void> {
  if (ms < TIMER_MS) Atomics.wait(idle, 0, 0, ms);
  else await new Promise((resolve) => setTimeout(resolve, ms));
}

/** @returns the answer, or in words what came instead. */
async function attempt(port: number): Promise<Omit<FirstAnswer, "attempts"> | string> {
  const { promise, resolve } = Promise.withResolvers<Omit<FirstAnswer, "attempts"> | string>();
  let received = Buffer.alloc(0);
  const socket = {
    data(from: Bun.Socket, chunk: Buffer) {
      received = received.length === 0 ? Buffer.from(chunk) : Buffer.concat([received, chunk]);
      const seen = received.length > MOST_BYTES ? `more than ${MOST_BYTES} bytes` : wholeAnswer(received);
      if (seen === undefined) return;
      const atMs = nowMs();
      resolve(typeof seen === "string" ? seen : { atMs, body: seen.body });
      from.terminate();
    },
    open(to: Bun.Socket) {
      to.write(REQUEST);
    },
    close: () => resolve(received.length === 0 ? "a connection that ended" : "an answer that ended too early"),
    error: (_: Bun.Socket, error: Error) => resolve(error.message),
    connectError: (_: Bun.Socket, error: Error) => resolve(error.message),
  };
  Bun.connect({ hostname: "127.0.0.1", port, socket }).catch((error: unknown) => resolve(String(error)));
  return promise;
}

/** The body of a whole answer with status 200; in words what it is instead; undefined while bytes are missing. */
function wholeAnswer(received: Buffer): { body: string } | string | undefined {
  const headEnd = received.indexOf(HEAD_END);
  if (headEnd < 0) return undefined;
  const head = received.toString("latin1", 0, headEnd);
  const status = /^HTTP\/1\.[01] (\d{3})/.exec(head)?.[1];
  if (status !== "200") return `status ${status ?? "in no HTTP"}`;
  const length = /^content-length: *(\d+)/im.exec(head)?.[1];
  if (length === undefined) return "an answer without its length";
  const [from, size] = [headEnd + HEAD_END.length, Number(length)];
  return received.length < from + size ? undefined : { body: received.toString("utf8", from, from + size) };
}

/** A TCP port of the loopback address on which nobody listens at this moment. */
export function freePort(): number {
  const listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data: () => undefined } });
  const { port } = listener;
  listener.stop(true);
  return port;
}
