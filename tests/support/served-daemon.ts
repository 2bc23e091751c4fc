/** A daemon in this process over a fake engine, on a unix socket of its own; and a WebSocket client that keeps what it gets. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { z } from "zod";
import type { StreamReply, StreamRequest } from "../../src/contract/api.ts";
import { setLogLevel } from "../../src/daemon/log.ts";
import { type ServeOptions, type Serving, serve } from "../../src/daemon/serve.ts";
import { FakeEngine } from "./fake-engine.ts";

/** A served fake. Dispose it at the test's end. */
export interface ServedDaemon extends AsyncDisposable {
  engine: FakeEngine;
  serving: Serving;
  socketPath: string;
  /** fetch over the daemon's socket; `json` is sent as the body. */
  call(method: string, path: string, json?: unknown, init?: RequestInit): Promise<Response>;
  /** As `call`, with the answer checked against its schema. */
  ask<Schema extends z.ZodType>(
    schema: Schema,
    method: string,
    path: string,
    json?: unknown,
    init?: RequestInit,
  ): Promise<z.output<Schema>>;
  connect(path: string): Promise<TestStream>;
}

/** Serves a new fake engine. */
export async function servedDaemon(options: Partial<ServeOptions> = {}): Promise<ServedDaemon> {
  setLogLevel("off");
  const directory = mkdtempSync(join(tmpdir(), "mayfly-daemon-"));
  const socketPath = join(directory, "mayfly.sock");
  const engine = new FakeEngine();
  const serving = await serve(engine, { socketPath, ...options });
  const streams: TestStream[] = [];
  const call: ServedDaemon["call"] = (method, path, json, init = {}) =>
    fetch(`http://mayfly${path}`, {
      ...init,
      method,
      unix: socketPath,
      ...(json === undefined
        ? {}
        : { body: JSON.stringify(json), headers: { "content-type": "application/json", ...init.headers } }),
    });
  return {
    engine,
    serving,
    socketPath,
    call,
    ask: async (schema, ...request) => schema.parse(await (await call(...request)).json()),
    async connect(path) {
      const stream = new TestStream(`ws+unix://${socketPath}:${path}`);
      streams.push(stream);
      await stream.opened;
      return stream;
    },
    async [Symbol.asyncDispose]() {
      for (const stream of streams) stream.close();
      await serving.stop();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** A client of a stream socket. */
export class TestStream {
  readonly #socket: WebSocket;
  readonly #open = Promise.withResolvers<void>();
  readonly #closed = Promise.withResolvers<number>();
  readonly #waiters: (() => void)[] = [];
  readonly replies: StreamReply[] = [];
  readonly output: Record<1 | 2, number[]> = { 1: [], 2: [] };

  constructor(url: string) {
    this.#socket = new WebSocket(url);
    this.#socket.binaryType = "arraybuffer";
    this.#socket.onopen = () => this.#open.resolve();
    this.#socket.onerror = () => this.#open.reject(new Error(`cannot open ${url}`));
    this.#socket.onmessage = ({ data }) => this.#take(data);
    this.#socket.onclose = ({ code }) => {
      this.#closed.resolve(code);
      this.#wake();
    };
  }

  get opened(): Promise<void> {
    return this.#open.promise;
  }

  /** The close code. */
  get closed(): Promise<number> {
    return this.#closed.promise;
  }

  send(request: StreamRequest): void {
    this.#socket.send(JSON.stringify(request));
  }

  sendRaw(message: string | Uint8Array<ArrayBuffer>): void {
    this.#socket.send(message);
  }

  input(bytes: Uint8Array): void {
    this.#socket.send(Buffer.concat([Buffer.of(0), bytes]));
  }

  close(): void {
    this.#socket.close();
  }

  text(channel: 1 | 2): string {
    return Buffer.from(this.output[channel]).toString();
  }

  /** Waits until there is a reply of this type. */
  async reply<Type extends StreamReply["type"]>(type: Type): Promise<Extract<StreamReply, { type: Type }>> {
    while (true) {
      const found = this.replies.find((reply): reply is Extract<StreamReply, { type: Type }> => reply.type === type);
      if (found !== undefined) return found;
      if (this.#socket.readyState === WebSocket.CLOSED)
        throw new Error(`closed without ${type}: ${JSON.stringify(this.replies)}`);
      await this.change();
    }
  }

  /** Waits for the next message or the end. */
  change(): Promise<void> {
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  #take(data: string | ArrayBuffer): void {
    if (typeof data === "string") this.replies.push(JSON.parse(data) as StreamReply);
    else {
      const bytes = new Uint8Array(data);
      this.output[bytes[0] === 2 ? 2 : 1].push(...bytes.subarray(1));
    }
    this.#wake();
  }

  #wake(): void {
    for (const wake of this.#waiters.splice(0)) wake();
  }
}
