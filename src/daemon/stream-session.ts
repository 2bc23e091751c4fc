/**
 * One client's view of one process over a WebSocket: the messages of `StreamRequest` and `StreamReply`.
 * Output goes out as it comes, and the guest may send more only when the client has taken it; standard input goes in in order,
 * each part after the one before, and is acknowledged when the guest has taken it. Signals and resizes do not wait behind it.
 */
import { STDIN_WINDOW_BYTES, STREAM_CHANNELS, type StreamReply, StreamRequest, type Vm } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import type { OutputChannel, OutputSink, ProcessSession } from "../engine/interface.ts";
import type { MessageStream, StreamAcceptor, StreamEvents } from "../sys/http.ts";
import { problemOf } from "./problem.ts";
import { parse } from "./route.ts";

/** Status codes of RFC 6455 that end a stream. */
const CLOSE = { done: 1000, goingAway: 1001, failed: 1011, policy: 1008 } as const;

/** The first message of a stream. */
export type Opening = Extract<StreamRequest, { type: "create" | "exec" | "attach" }>;

/** What a route does with a stream. */
export interface StreamTarget<Type extends Opening["type"]> {
  /** The opening message that this stream takes. */
  readonly opens: Type;
  /** Starts or joins the process. `signal` fires when the client goes away before that is done. */
  start(opening: Extract<Opening, { type: Type }>, link: StreamLink): Promise<StartedProcess>;
}

/** What a target gets to work with. */
export interface StreamLink {
  readonly sink: OutputSink;
  readonly signal: AbortSignal;
  progress(step: string): void;
}

/** A process that was started or joined. */
export interface StartedProcess {
  vm: Vm;
  process: ProcessSession;
  /** Whether the client may send standard input. */
  stdin: boolean;
  /** What to do instead of detaching when the client goes away before the exit. */
  abandoned?: () => void;
}

/** An acceptor of streams for a target. */
export function acceptStream<Type extends Opening["type"]>(target: StreamTarget<Type>): StreamAcceptor {
  return (stream) => new StreamSession(stream, target);
}

class StreamSession<Type extends Opening["type"]> implements StreamEvents {
  readonly #stream: MessageStream;
  readonly #target: StreamTarget<Type>;
  readonly #gone = new AbortController();
  /** Parts of standard input not yet taken; `eof` after the last. */
  readonly #input: (Uint8Array | "eof")[] = [];
  #inputBytes = 0;
  #pumping = false;
  #opened = false;
  #ended = false;
  #started: StartedProcess | undefined;
  /** Signals and the last size that came before the process was there. */
  #early: StreamRequest[] = [];

  constructor(stream: MessageStream, target: StreamTarget<Type>) {
    this.#stream = stream;
    this.#target = target;
  }

  text(message: string): void {
    if (this.#ended) return;
    try {
      this.#request(parse(StreamRequest, json(message), "the request"));
    } catch (error) {
      this.#fail(error, CLOSE.policy);
    }
  }

  bytes(message: Uint8Array): void {
    if (this.#ended) return;
    try {
      if (message[0] !== STREAM_CHANNELS.stdin)
        throw invalid(`channel ${message[0]} is not for the client; standard input is 0`);
      this.#take(message.subarray(1));
    } catch (error) {
      this.#fail(error, CLOSE.policy);
    }
  }

  closed(): void {
    const finished = this.#ended;
    this.#ended = true;
    this.#gone.abort();
    if (!finished) this.#abandon();
  }

  #request(request: StreamRequest): void {
    if (request.type === "eof") {
      this.#input.push("eof");
      this.#pump();
    } else if (request.type === "resize" || request.type === "signal") {
      this.#control(request);
    } else {
      this.#open(request);
    }
  }

  #open(opening: Opening): void {
    if (this.#opened) throw invalid(`${opening.type} came after the stream had begun`);
    if (!this.#isOwn(opening)) throw invalid(`this stream begins with ${this.#target.opens}, not with ${opening.type}`);
    this.#opened = true;
    void this.#run(opening);
  }

  #isOwn(opening: Opening): opening is Extract<Opening, { type: Type }> {
    return opening.type === this.#target.opens;
  }

  async #run(opening: Extract<Opening, { type: Type }>): Promise<void> {
    try {
      const link = {
        sink: { output: (channel: OutputChannel, chunk: Uint8Array) => this.#output(channel, chunk) },
        signal: this.#gone.signal,
        progress: (step: string) => this.#reply({ type: "progress", step }),
      };
      this.#started = await this.#target.start(opening, link);
      if (this.#ended) return this.#abandon();
      this.#reply({ type: "started", vm: this.#started.vm });
      for (const request of this.#early.splice(0)) this.#control(request);
      this.#pump();
      const { exitCode, signal } = await this.#started.process.exited;
      this.#finish({ type: "exit", exitCode, signal }, CLOSE.done);
    } catch (error) {
      this.#fail(error, CLOSE.failed);
    }
  }

  #control(request: StreamRequest): void {
    const process = this.#started?.process;
    if (process === undefined) {
      if (this.#early.length >= 64) throw invalid("too many messages before the process has started");
      this.#early.push(request);
    } else if (request.type === "resize") {
      process.resize(request.rows, request.columns);
    } else if (request.type === "signal") {
      process.signal(request.signal);
    }
  }

  #take(part: Uint8Array): void {
    if (this.#started?.stdin === false) throw invalid("standard input was not asked for when the stream began");
    if (part.length === 0) return;
    this.#inputBytes += part.length;
    if (this.#inputBytes > STDIN_WINDOW_BYTES) {
      throw invalid(
        `${this.#inputBytes} bytes of standard input are unacknowledged, at most ${STDIN_WINDOW_BYTES} may be`,
      );
    }
    this.#input.push(part);
    this.#pump();
  }

  /** Gives input to the process, one part after the other. */
  #pump(): void {
    if (this.#pumping || this.#started === undefined) return;
    this.#pumping = true;
    void this.#drain(this.#started.process).finally(() => {
      this.#pumping = false;
    });
  }

  async #drain(process: ProcessSession): Promise<void> {
    for (let part = this.#input.shift(); part !== undefined && !this.#ended; part = this.#input.shift()) {
      if (part === "eof") {
        process.closeInput();
        continue;
      }
      // A process that takes no more input (it ended, or closed it) is no failure: what comes is dropped, as by a closed pipe.
      await process.write(part).catch(() => undefined);
      this.#inputBytes -= part.length;
      this.#reply({ type: "ack", bytes: part.length });
    }
  }

  #output(channel: OutputChannel, chunk: Uint8Array): Promise<void> | undefined {
    if (this.#ended) return undefined;
    return this.#deliver(outputFrame(channel, chunk)) ? undefined : this.#stream.drained();
  }

  #reply(reply: StreamReply): void {
    if (!this.#ended) this.#deliver(JSON.stringify(reply));
  }

  /** @returns whether the peer keeps up. */
  #deliver(message: string | Uint8Array): boolean {
    const result = this.#stream.send(message);
    if (result === "dropped") {
      this.closed();
      this.#stream.close(CLOSE.policy, "the client does not read");
    }
    return result === "sent";
  }

  #fail(error: unknown, code: number): void {
    if (this.#ended) return;
    this.#finish({ type: "error", problem: problemOf(error) }, code);
    this.#abandon();
  }

  #finish(reply: StreamReply, code: number): void {
    if (this.#ended) return;
    this.#deliver(JSON.stringify(reply));
    this.#ended = true;
    this.#stream.close(code, "");
  }

  /** The client is gone or has broken the rules, and the process goes on (or not: see the target). */
  #abandon(): void {
    const started = this.#started;
    if (started === undefined) return;
    started.process.exited.catch(() => undefined);
    if (started.abandoned === undefined) started.process.detach();
    else started.abandoned();
  }
}

/** One for all sessions: a frame is copied or sent before the next is made. */
let frameBuffer = new Uint8Array(1 + (64 << 10));

/** An output message, valid until the next one is made. */
function outputFrame(channel: OutputChannel, chunk: Uint8Array): Uint8Array {
  if (chunk.length >= frameBuffer.length) frameBuffer = new Uint8Array(chunk.length + 1);
  frameBuffer[0] = channel;
  frameBuffer.set(chunk, 1);
  return frameBuffer.subarray(0, chunk.length + 1);
}

function json(message: string): unknown {
  try {
    return JSON.parse(message);
  } catch (error) {
    throw invalid(`it is no JSON (${error instanceof Error ? error.message : String(error)})`);
  }
}

function invalid(reason: string): MayflyError {
  return new MayflyError("invalid_argument", `Cannot take the request: ${reason}`);
}
