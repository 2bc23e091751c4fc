/**
 * The client's side of WebSocket (RFC 6455) over a byte channel. Bun's own client cannot be paused, so that a slow reader of a
 * VM's output would have all of it gathered in memory; this one stops reading, and the daemon and the guest wait.
 */
import { MayflyError } from "../contract/errors.ts";
import type { ByteChannel } from "../sys/channel.ts";
import { sha1Base64 } from "../sys/hash.ts";
import { deferred } from "./deferred.ts";
import { errorOfAnswer } from "./problem.ts";
import type { MessageSocket, SocketEvents } from "./transport.ts";
import {
  concatenate,
  encodeFrame,
  type Frame,
  HANDSHAKE_LIMIT_BYTES,
  MESSAGE_LIMIT_BYTES,
  OPCODES,
  parseAnswer,
  parseFrame,
  tooLong,
  violation,
} from "./websocket-wire.ts";

const MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/** What {@link WebSocketClient} asks for. */
export interface Handshake {
  path: string;
  host: string;
  headers: Readonly<Record<string, string>>;
  /** Whether to mask with random bytes. On a unix socket nothing lies between, and a mask of zeroes saves the work. */
  mask: boolean;
}

/** A WebSocket whose channel feeds it by {@link receive} and {@link channelClosed}. */
export class WebSocketClient implements MessageSocket {
  readonly #events: SocketEvents;
  readonly #handshake: Handshake;
  readonly #key = btoa(String.fromCharCode(...crypto.getRandomValues(new Uint8Array(16))));
  readonly #opened = deferred<void>();
  #channel: ByteChannel | undefined;
  #state: "connecting" | "open" | "closing" | "closed" = "connecting";
  #received: Uint8Array = new Uint8Array(0);
  #fragments: { opcode: number; parts: Uint8Array[]; length: number } | undefined;
  #paused = false;
  #channelEnd: { cause: Error | undefined } | undefined;

  constructor(handshake: Handshake, events: SocketEvents) {
    this.#handshake = handshake;
    this.#events = events;
  }

  /** Sends the handshake. @returns a promise of the open connection. @throws the daemon's error if it refuses. */
  open(channel: ByteChannel): Promise<void> {
    this.#channel = channel;
    const { path, host, headers } = this.#handshake;
    const lines = [
      `GET ${path} HTTP/1.1`,
      `host: ${host}`,
      "connection: Upgrade",
      "upgrade: websocket",
      "sec-websocket-version: 13",
      `sec-websocket-key: ${this.#key}`,
      ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`),
    ];
    channel.write(new TextEncoder().encode(`${lines.join("\r\n")}\r\n\r\n`));
    return this.#opened.promise;
  }

  /** Takes bytes of the channel, which may change after the call. */
  receive(chunk: Uint8Array): void {
    this.#received = this.#received.length === 0 ? chunk : concatenate([this.#received, chunk]);
    this.#consume();
    // What is left is kept beyond this call.
    if (this.#received.length > 0 && this.#received.buffer === chunk.buffer) this.#received = this.#received.slice();
  }

  /** The channel is gone. */
  channelClosed(cause: Error | undefined): void {
    this.#channelEnd = { cause };
    if (this.#state === "connecting") this.#consume();
    if (this.#paused && this.#received.length > 0) return;
    this.#end(cause);
  }

  text(message: string): void {
    this.#send(OPCODES.text, undefined, new TextEncoder().encode(message));
  }

  binary(channel: number, bytes: Uint8Array): void {
    this.#send(OPCODES.binary, channel, bytes);
  }

  async drained(): Promise<void> {
    await this.#channel?.drained();
  }

  pause(): void {
    if (this.#paused) return;
    this.#paused = true;
    this.#channel?.pause();
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#consume();
    if (this.#paused) return;
    if (this.#channelEnd !== undefined) this.#end(this.#channelEnd.cause);
    else this.#channel?.resume();
  }

  close(): void {
    if (this.#state === "open") {
      this.#send(OPCODES.close, undefined, new Uint8Array([1000 >> 8, 1000 & 255]));
      this.#state = "closing";
    }
    const channel = this.#channel;
    const cut = () => channel?.close();
    channel?.drained().then(cut, cut);
  }

  #consume(): void {
    if (this.#state === "connecting") this.#readAnswer();
    try {
      while (this.#state !== "connecting" && this.#state !== "closed" && !this.#paused) {
        const frame = parseFrame(this.#received);
        if (frame === undefined) return;
        this.#received = this.#received.subarray(frame.end);
        this.#take(frame);
      }
    } catch (error) {
      this.#fail(error instanceof Error ? error : new Error(String(error)));
    }
  }

  #readAnswer(): void {
    const answer = parseAnswer(this.#received, this.#channelEnd !== undefined);
    if (answer === undefined) {
      if (this.#received.length > HANDSHAKE_LIMIT_BYTES)
        this.#fail(violation("the answer to the handshake does not end"));
      return;
    }
    this.#received = this.#received.subarray(answer.end);
    if (answer.status !== 101) {
      this.#fail(errorOfAnswer(answer.status, answer.body, `open ${this.#handshake.path}`));
      return;
    }
    if (answer.headers.get("sec-websocket-accept") !== sha1Base64(this.#key + MAGIC)) {
      this.#fail(violation("the answer to the handshake has another key"));
      return;
    }
    this.#state = "open";
    this.#opened.resolve();
  }

  #take(frame: Frame): void {
    switch (frame.opcode) {
      case OPCODES.ping:
        this.#send(OPCODES.pong, undefined, frame.payload);
        return;
      case OPCODES.pong:
        return;
      case OPCODES.close:
        this.#closedByPeer(frame.payload);
        return;
      case OPCODES.continuation:
        this.#continue(frame);
        return;
    }
    if (this.#fragments !== undefined) throw violation("a message began inside another");
    if (frame.final) this.#deliver(frame.opcode, frame.payload);
    else this.#fragments = { opcode: frame.opcode, parts: [frame.payload.slice()], length: frame.payload.length };
  }

  #continue(frame: Frame): void {
    const fragments = this.#fragments;
    if (fragments === undefined) throw violation("a continuation came without a message");
    fragments.length += frame.payload.length;
    if (fragments.length > MESSAGE_LIMIT_BYTES) throw tooLong(fragments.length);
    fragments.parts.push(frame.payload.slice());
    if (!frame.final) return;
    this.#fragments = undefined;
    this.#deliver(fragments.opcode, concatenate(fragments.parts));
  }

  #deliver(opcode: number, payload: Uint8Array): void {
    if (opcode === OPCODES.binary) this.#events.binary(payload);
    else if (opcode === OPCODES.text) this.#events.text(new TextDecoder("utf-8", { fatal: true }).decode(payload));
    else throw violation(`an unknown opcode ${opcode}`);
  }

  #closedByPeer(payload: Uint8Array): void {
    const code = payload.length >= 2 ? ((payload[0] ?? 0) << 8) | (payload[1] ?? 0) : 1005;
    const reason = new TextDecoder().decode(payload.subarray(2));
    const inOrder = this.#state === "closing" || code === 1000 || code === 1005;
    if (this.#state === "open") this.#send(OPCODES.close, undefined, payload.subarray(0, 2));
    this.#end(
      inOrder
        ? undefined
        : new MayflyError("connection_failed", `The daemon closed the stream: ${reason || `code ${code}`}`),
    );
  }

  #send(opcode: number, first: number | undefined, bytes: Uint8Array): void {
    if (this.#state !== "open") return;
    this.#channel?.write(encodeFrame(opcode, first, bytes, this.#handshake.mask));
  }

  #fail(error: Error): void {
    this.#opened.reject(error);
    this.#end(error);
  }

  #end(cause: Error | undefined): void {
    if (this.#state === "closed") return;
    const before = this.#state;
    this.#state = "closed";
    this.#channel?.close();
    if (before === "connecting") {
      this.#opened.reject(cause ?? new MayflyError("connection_failed", "The connection ended during the handshake"));
      return;
    }
    const broken = cause instanceof MayflyError ? cause : this.#channelEnd === undefined ? undefined : brokenBy(cause);
    this.#events.closed(before === "closing" ? undefined : broken);
  }
}

function brokenBy(cause: Error | undefined): MayflyError {
  const reason = cause === undefined ? "it ended in the middle" : cause.message;
  return new MayflyError("connection_failed", `The connection to the daemon broke: ${reason}`, { cause });
}
