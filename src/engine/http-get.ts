/** A GET over a connection into a guest, as far as probes and warm-ups need it: the status, and the whole answer read (RFC 9112). */
import type { Deadline } from "../sys/deadline.ts";

/** A connection to a port in the guest. What comes is given to the consumer of whoever made it. */
export interface GuestConnection {
  /** Sends bytes; resolves when there is room for more. */
  write(bytes: Uint8Array): Promise<unknown>;
  /** Resolves when the other end has closed its direction. Rejects when the connection breaks. */
  readonly ended: Promise<unknown>;
  /** Closes it; resolves when the guest has done so. */
  close(): Promise<unknown>;
}

/** Connects to a TCP port of the guest. */
export type GuestConnector = (
  port: number,
  consumer: (chunk: Uint8Array) => void,
  deadline: Deadline,
) => Promise<GuestConnection>;

const MAX_HEAD_BYTES = 64 * 1024;
/** How long a server that has answered has to close the connection, as it was asked to. */
const CLOSE_MS = 1_000;

/**
 * Asks for a path and reads the answer to its end.
 * @returns the status, or undefined when what came is no answer of HTTP.
 * @throws what connecting throws; `deadline_exceeded`, `cancelled`.
 */
export async function httpGet(
  connect: GuestConnector,
  target: { port: number; path: string },
  deadline: Deadline,
): Promise<number | undefined> {
  const answer = new Answer();
  const connection = await connect(target.port, (chunk) => answer.take(chunk), deadline);
  try {
    const head = `GET ${target.path} HTTP/1.1\r\nHost: localhost:${target.port}\r\nUser-Agent: mayfly\r\nAccept: */*\r\nConnection: close\r\n\r\n`;
    await deadline.race(connection.write(Buffer.from(head)), `sending GET ${target.path}`);
    const ended = connection.ended.then(
      () => undefined,
      () => undefined,
    );
    await deadline.race(Promise.race([answer.complete, ended]), `the answer to GET ${target.path}`);
    await deadline
      .within(CLOSE_MS)
      .race(ended, "the end of the connection")
      .catch(() => undefined);
    return answer.status;
  } finally {
    await connection.close().catch(() => undefined);
  }
}

/** Reads an answer: its status, and where it ends. Contents are dropped. */
class Answer {
  status: number | undefined;
  readonly #complete = Promise.withResolvers<void>();
  /** Resolves when the answer is whole, or is none. An answer without a length ends with its connection. */
  readonly complete = this.#complete.promise;
  #head = Buffer.alloc(0);
  /** Bytes of contents that are still to come; undefined: until the connection ends. */
  #left: number | undefined;
  #chunked = false;
  #end = Buffer.alloc(0);

  take(chunk: Uint8Array): void {
    let bytes = Buffer.from(chunk);
    while (this.status === undefined || this.status < 200) {
      this.#head = Buffer.concat([this.#head, bytes]);
      const length = this.#head.indexOf("\r\n\r\n");
      if (length < 0) {
        if (this.#head.length > MAX_HEAD_BYTES) this.#complete.resolve();
        return;
      }
      bytes = this.#head.subarray(length + 4);
      const head = this.#head.subarray(0, length).toString("latin1");
      this.#head = Buffer.alloc(0);
      if (!this.#begin(head)) return;
    }
    this.#contents(bytes);
  }

  /** Takes a head. @returns whether it is one. */
  #begin(head: string): boolean {
    const status = /^HTTP\/1\.[01] (\d{3})(?: |\r|$)/.exec(head)?.[1];
    if (status === undefined) {
      this.status = undefined;
      this.#complete.resolve();
      return false;
    }
    this.status = Number(status);
    this.#chunked = /\r\ntransfer-encoding:[^\r]*chunked/i.test(head);
    const length = /\r\ncontent-length:[ \t]*(\d{1,15})/i.exec(head)?.[1];
    const isEmpty = this.status === 204 || this.status === 304;
    this.#left = isEmpty ? 0 : this.#chunked || length === undefined ? undefined : Number(length);
    return true;
  }

  #contents(bytes: Buffer): void {
    if (this.#left !== undefined) {
      this.#left -= bytes.length;
      if (this.#left <= 0) this.#complete.resolve();
    } else if (this.#chunked) {
      this.#end = Buffer.from(Buffer.concat([this.#end, bytes]).subarray(-7));
      if (/(^|\n)0\r\n\r\n$/.test(this.#end.toString("latin1"))) this.#complete.resolve();
    }
  }
}
