import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { sampleVm } from "../../tests/support/samples.ts";
import type { Vm } from "../contract/api.ts";
import { STDIN_WINDOW_BYTES } from "../contract/stream.ts";
import { serverEvents } from "./events.ts";
import { readRawStream } from "./raw-stream.ts";
import { Session } from "./session.ts";
import type { MessageSocket } from "./transport.ts";

async function* split(bytes: Uint8Array, step: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += step) yield bytes.slice(at, at + step);
}

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

test("server-sent events are read, however they are split", async () => {
  const text =
    ': connected\n\nid: 1\nevent: vm.running\ndata: {"a":"é"}\n\ndata: x\r\ndata: y\r\n\r\nevent: unfinished\ndata: z';
  for (const step of [1, 2, 7, 1000]) {
    expect(await collect(serverEvents(split(new TextEncoder().encode(text), step)))).toEqual([
      { event: "vm.running", data: '{"a":"é"}' },
      { event: "message", data: "x\ny" },
    ]);
  }
});

test("raw streams are taken apart, however they are split", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.boolean(), fc.uint8Array({ minLength: 1, maxLength: 90 }))),
      fc.integer({ min: 1, max: 50 }),
      async (frames, step) => {
        const bytes = frames.flatMap(([isError, payload]) => [
          isError ? 2 : 1,
          0,
          0,
          0,
          0,
          0,
          0,
          payload.length,
          ...payload,
        ]);
        const chunks = await collect(readRawStream(split(Uint8Array.from(bytes), step)));
        expect(chunks.map(({ name, bytes: payload }) => [name, [...payload]])).toEqual(
          frames.map(([isError, payload]) => [isError ? "stderr" : "stdout", [...payload]]),
        );
      },
    ),
  );
  expect(collect(readRawStream(split(Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 9, 1), 3)))).rejects.toMatchObject({
    code: "connection_failed",
  });
});

/** A socket that keeps what is sent. */
class KeepingSocket implements MessageSocket {
  readonly texts: string[] = [];
  readonly binaries: number[] = [];
  paused = false;
  closed = false;
  text(message: string): void {
    this.texts.push(message);
  }
  binary(_channel: number, bytes: Uint8Array): void {
    this.binaries.push(bytes.length);
  }
  drained(): Promise<void> {
    return Promise.resolve();
  }
  pause(): void {
    this.paused = true;
  }
  resume(): void {
    this.paused = false;
  }
  close(): void {
    this.closed = true;
  }
}

const reply = (session: Session, message: object) => session.socketEvents.text(JSON.stringify(message));

describe("a session", () => {
  test("sends standard input within the window, and the rest after acknowledgements", async () => {
    const socket = new KeepingSocket();
    const session = new Session({ output: () => undefined });
    session.begin(socket, { type: "exec", request: { command: ["cat"] } });
    const total = STDIN_WINDOW_BYTES + 300_000;
    let written = false;
    const writing = session.write(new Uint8Array(total)).then(() => {
      written = true;
    });
    await Bun.sleep(1);
    const sent = () => socket.binaries.reduce((sum, length) => sum + length, 0);
    expect([sent(), written]).toEqual([STDIN_WINDOW_BYTES, false]);
    reply(session, { type: "ack", bytes: 100_000 });
    await Bun.sleep(1);
    expect([sent(), written]).toEqual([STDIN_WINDOW_BYTES + 100_000, false]);
    reply(session, { type: "ack", bytes: 200_000 });
    await writing;
    expect([sent(), written]).toEqual([total, true]);
  });

  test("gives output one chunk at a time, in order, and the exit after the last", async () => {
    const socket = new KeepingSocket();
    const taken: number[] = [];
    const gates: (() => void)[] = [];
    const session = new Session({
      output: (_name, bytes) => {
        taken.push(bytes[0] ?? -1);
        return new Promise((resolve) => gates.push(resolve));
      },
    });
    session.begin(socket, { type: "exec", request: { command: ["x"] } });
    reply(session, { type: "started", vm: { id: "vm_x" } satisfies Partial<Vm> });
    expect(await session.started).toMatchObject({ id: "vm_x" });
    for (const byte of [10, 11, 12]) session.socketEvents.binary(Uint8Array.of(1, byte));
    reply(session, { type: "exit", exitCode: 3, signal: 0 });
    let exited = false;
    void session.exited.then(() => {
      exited = true;
    });
    expect([taken, socket.paused]).toEqual([[10], true]);
    for (const count of [2, 3]) {
      gates.shift()?.();
      await Bun.sleep(1);
      expect([taken.length, exited]).toEqual([count, false]);
    }
    gates.shift()?.();
    expect(await session.exited).toEqual({ exitCode: 3, signal: 0 });
    expect([taken, socket.closed]).toEqual([[10, 11, 12], true]);
  });

  test("fails with the daemon's error, and releases a waiting writer", async () => {
    const session = new Session({ output: () => undefined });
    session.begin(new KeepingSocket(), { type: "exec", request: { command: ["x"] } });
    const writing = session.write(new Uint8Array(STDIN_WINDOW_BYTES * 2));
    reply(session, { type: "error", problem: { code: "command_not_found", detail: "no x" } });
    await writing;
    expect(await session.exited.catch((error: unknown) => error)).toMatchObject({
      code: "command_not_found",
      message: "no x",
    });
    expect(await session.started.catch((error: unknown) => error)).toMatchObject({ code: "command_not_found" });
  });

  test("a connection that ends without an exit is an error, also after output that failed", async () => {
    const session = new Session({ output: () => Promise.reject(new Error("full")) });
    session.begin(new KeepingSocket(), { type: "exec", request: { command: ["x"] } });
    session.socketEvents.text(JSON.stringify({ type: "started", vm: sampleVm }));
    session.socketEvents.binary(Uint8Array.of(1, 1));
    expect(await session.exited.catch((error: unknown) => error)).toMatchObject({ message: "full" });
    const other = new Session({ output: () => undefined });
    other.begin(new KeepingSocket(), { type: "exec", request: { command: ["x"] } });
    other.socketEvents.closed(undefined);
    expect(await other.exited.catch((error: unknown) => error)).toMatchObject({ code: "connection_failed" });
  });
});
