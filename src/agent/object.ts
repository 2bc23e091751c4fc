/** An object of the agent's (a process or a file transfer) as the host sees it: its streams and its end. */
import { MayflyError } from "../contract/errors.ts";
import type { AgentConnection } from "./connection.ts";
import type { AgentHello, ExitReport, KnownObject } from "./results.ts";
import { IncomingStream, OutgoingStream } from "./stream.ts";
import { Channel, FrameType, type OutputChannel, streamOf, violation } from "./wire.ts";

/**
 * Takes output. The chunk is a view, valid during the call (copy what is used later); returning, or resolving, means
 * that the bytes are *kept* and may be acknowledged. Calls for one channel never overlap. A throw ends the object's delivery:
 * its `ended` rejects with it, and the guest's process blocks once the window is full.
 */
export type OutputConsumer = (channel: OutputChannel, chunk: Uint8Array, offset: number) => void | Promise<void>;

/** What has been kept of an object's output, in bytes: where a later connection goes on. */
export interface OutputOffsets {
  output: number;
  error: number;
}

/** Where an object that exists already is to go on. */
export interface ResumePoint extends OutputOffsets {
  object: number;
  /** Go on with what the agent still has when bytes from there on are gone: the consumer is then given a later offset. */
  skipGone?: boolean;
}

/** The host's end of one object. The connection feeds it frames; {@link ended} and the streams are for its owner. */
export class AgentObject {
  readonly id: number;
  /** Channel 1. */
  readonly input: OutgoingStream;
  /** Resolves once the object has ended and all of its output is kept. */
  readonly ended: Promise<ExitReport>;
  /** For an object that existed already: resolves when the agent has confirmed that it knows it. */
  readonly confirmed: Promise<KnownObject>;
  readonly #connection: AgentConnection;
  readonly #resume: ResumePoint | undefined;
  readonly #output: IncomingStream;
  readonly #error: IncomingStream;
  readonly #ended = Promise.withResolvers<ExitReport>();
  readonly #confirmed = Promise.withResolvers<KnownObject>();
  #exit: ExitReport | undefined;
  #over = false;

  /**
   * @param from where an object that exists already is to go on (its input waits until the agent says from where); or whether a new one is of
   * use to later connections.
   */
  constructor(
    connection: AgentConnection,
    consumer: OutputConsumer,
    from: ResumePoint | "lasting" | "transient" = "lasting",
  ) {
    const resume = typeof from === "string" ? undefined : from;
    this.#connection = connection;
    this.#resume = resume;
    this.id = resume?.object ?? (from === "transient" ? connection.newTransientId() : connection.newId());
    const stream = streamOf(this.id, Channel.input);
    this.input = new OutgoingStream(
      {
        data: (bytes, offset) => connection.outbox.data(this.id, bytes, offset),
        eof: (offset) => connection.outbox.offset(FrameType.eof, stream, offset),
      },
      resume === undefined ? connection.window : 0,
    );
    this.#output = this.#incoming(2, consumer, resume?.output ?? 0);
    this.#error = this.#incoming(3, consumer, resume?.error ?? 0);
    this.ended = this.#ended.promise;
    this.confirmed = this.#confirmed.promise;
    // Whoever does not wait for these is told by the connection's end as well.
    this.ended.catch(() => undefined);
    this.confirmed.catch(() => undefined);
    connection.add(this, resume);
  }

  #incoming(channel: OutputChannel, consumer: OutputConsumer, offset: number): IncomingStream {
    const stream = streamOf(this.id, channel);
    return new IncomingStream(
      {
        deliver: (chunk, at) => consumer(channel, chunk, at),
        progress: (incoming) => {
          this.#connection.acknowledgeSoon(stream, incoming);
          this.#settle();
        },
        failed: (error) => this.lost(error),
      },
      offset,
      this.#connection.window,
    );
  }

  /** What is kept once no call of the consumer is under way: where to resume after the connection was lost. */
  async settled(): Promise<OutputOffsets> {
    await Promise.all([this.#output.idle(), this.#error.idle()]);
    return { output: this.#output.kept, error: this.#error.kept };
  }

  /** What has arrived of its output, kept by the consumer or not. */
  get arrived(): OutputOffsets {
    return { output: this.#output.received, error: this.#error.received };
  }

  /** Takes a frame of one of the object's streams. @throws `agent_protocol_violation`. */
  data(channel: number, bytes: Uint8Array, offset: number): void {
    const stream = this.#incomingOf(channel, "data");
    if (!this.#isGone(stream, offset)) stream.data(bytes, offset);
  }

  /** @throws `agent_protocol_violation` */
  eof(channel: number, offset: number): void {
    const stream = this.#incomingOf(channel, "an end");
    if (!this.#isGone(stream, offset)) stream.eof(offset);
  }

  /**
   * Whether a resumed stream begins later than was asked for: its bytes were acknowledged before, though whoever resumes it does
   * not have them. That is no fault of the guest's, and the end of this object alone.
   */
  #isGone(stream: IncomingStream, offset: number): boolean {
    const asked = stream === this.#output ? this.#resume?.output : this.#resume?.error;
    if (asked === undefined || stream.received !== asked || offset <= asked) return false;
    if (this.#resume?.skipGone === true) {
      stream.skipTo(offset);
      return false;
    }
    const message = `Cannot go on with object ${this.id} of the guest agent: its output from ${asked} to ${offset} is gone`;
    this.abandon(new MayflyError("agent_request_failed", message));
    return true;
  }

  #incomingOf(channel: number, what: string): IncomingStream {
    if (channel === Channel.output) return this.#output;
    if (channel === Channel.error) return this.#error;
    throw violation(`it sent ${what} on channel ${channel} of object ${this.id}`);
  }

  /** Takes the EXIT. @throws `agent_protocol_violation` for a second one, or lengths that are not what came. */
  exit(report: ExitReport): void {
    if (this.#exit !== undefined) throw violation(`object ${this.id} ended twice`);
    this.#output.eof(report.outputEnd);
    this.#error.eof(report.errorEnd);
    this.#exit = report;
    this.input.stop();
    this.#settle();
  }

  /** The connection has said hello: the limits hold, and a resumed object is known or gone. */
  greeted(hello: AgentHello, known: KnownObject | undefined): void {
    this.#output.limit(hello.window);
    this.#error.limit(hello.window);
    if (this.#resume === undefined) {
      this.input.widen(hello.window);
      return;
    }
    const problem = resumeProblem(known, this.#resume);
    if (known === undefined || problem !== undefined) {
      const message = `Cannot go on with object ${this.id} of the guest agent: ${problem}`;
      this.abandon(new MayflyError("agent_request_failed", message));
      return;
    }
    this.input.resume(known.inputKept, hello.window);
    this.#confirmed.resolve(known);
  }

  /** Nothing more will come: the connection is gone, the object was released, or its consumer failed. */
  lost(error: unknown): void {
    if (this.#over) return;
    this.#over = true;
    this.#output.stop();
    this.#error.stop();
    this.input.stop(error instanceof Error ? error : new Error(String(error)));
    this.#ended.reject(error);
    this.#confirmed.reject(error);
  }

  /** Forgets the object on this side; the agent is not told. */
  abandon(error: unknown): void {
    this.#connection.remove(this.id);
    this.lost(error);
  }

  #settle(): void {
    if (this.#exit === undefined || this.#over || !this.#output.finished || !this.#error.finished) return;
    this.#over = true;
    this.#ended.resolve(this.#exit);
  }
}

function resumeProblem(known: KnownObject | undefined, resume: ResumePoint): string | undefined {
  if (known === undefined) return "it does not know it (any more)";
  for (const name of ["output", "error"] as const) {
    const end = known[`${name}End`];
    if (resume[name] > end) return `${resume[name]} bytes of its ${name} were kept, it has produced ${end}`;
  }
  return undefined;
}
