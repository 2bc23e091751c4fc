/** For tests: a TCP client with half-close, which reads and writes as it is told. */
import type { Socket } from "bun";
import { Deadline } from "../../src/sys/deadline.ts";

const LIMIT_MS = 20_000;

/** One connection. It keeps what comes, or with {@link TcpClient.onData} gives it away. */
export class TcpClient {
  readonly received: Buffer[] = [];
  receivedBytes = 0;
  /** Resolves when the other side sends nothing more. */
  readonly ended = Promise.withResolvers<void>();
  /** Resolves when it is over, with the system's code if it broke. */
  readonly closed = Promise.withResolvers<string | undefined>();
  onData: (chunk: Uint8Array) => void = (chunk) => void this.received.push(Buffer.from(chunk));
  #drained = Promise.withResolvers<void>();
  #progress = Promise.withResolvers<void>();
  #over = false;
  #socket: Socket<undefined> | undefined;

  static async open(port: number, hostname = "127.0.0.1"): Promise<TcpClient> {
    const client = new TcpClient();
    client.#socket = await Bun.connect<undefined>({
      hostname,
      port,
      allowHalfOpen: true,
      data: undefined,
      socket: {
        binaryType: "uint8array",
        data: (_socket, chunk) => client.#data(chunk),
        drain: () => client.#drained.resolve(),
        end: () => client.#end(),
        close: (_socket, error) => client.#close(error),
      },
    });
    return client;
  }

  get socket(): Socket<undefined> {
    if (this.#socket === undefined) throw new Error("not connected");
    return this.#socket;
  }

  /** What was kept, as text. */
  get text(): string {
    return Buffer.concat(this.received).toString();
  }

  /** Sends all of it. Rejects when the connection goes first. */
  async send(bytes: Uint8Array | string): Promise<void> {
    const all = Buffer.from(bytes);
    for (let at = 0; at < all.length; ) {
      this.#drained = Promise.withResolvers();
      const written = this.#over ? -1 : this.socket.write(all.subarray(at));
      if (written < 0) throw new Error(`the connection is gone after ${at} of ${all.length} bytes`);
      at += written;
      if (at < all.length) await this.#soon(this.#drained.promise, `room for ${all.length - at} bytes`);
    }
  }

  /** Ends this side's direction. */
  finish(): void {
    this.socket.shutdown();
  }

  /** Resolves when so many bytes have come; rejects when the connection goes first. */
  async has(byteCount: number): Promise<void> {
    while (this.receivedBytes < byteCount) {
      if (this.#over) throw new Error(`the connection is gone after ${this.receivedBytes} of ${byteCount} bytes`);
      this.#progress = Promise.withResolvers();
      await this.#soon(this.#progress.promise, `${byteCount} bytes, of which ${this.receivedBytes} have come`);
    }
  }

  #soon<T>(promise: Promise<T>, what: string): Promise<T> {
    return Deadline.after(LIMIT_MS).race(promise, what);
  }

  #data(chunk: Uint8Array): void {
    this.receivedBytes += chunk.length;
    this.onData(chunk);
    this.#progress.resolve();
  }

  #end(): void {
    this.ended.resolve();
    this.#progress.resolve();
  }

  #close(error: unknown): void {
    this.#over = true;
    this.#end();
    this.#drained.resolve();
    this.closed.resolve(error instanceof Error && "code" in error ? String(error.code) : undefined);
  }
}
