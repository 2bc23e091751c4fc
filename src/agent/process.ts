/** A process in the guest: output to a consumer, input with back-pressure, signals, exit status, release. */
import { MayflyError } from "../contract/errors.ts";
import { Deadline } from "../sys/deadline.ts";
import type { AgentConnection } from "./connection.ts";
import { execFailure, requestFailure } from "./failures.ts";
import { AgentObject, type OutputConsumer, type OutputOffsets, type ResumePoint } from "./object.ts";
import { type ExecSpec, encodeExec, encodeResize, encodeSignal } from "./requests.ts";
import { decodePid } from "./results.ts";
import type { OutgoingStream } from "./stream.ts";
import { Channel, FrameType, streamOf } from "./wire.ts";

/** How a process ended. */
export interface ExitStatus {
  /** 0..255, or null when a signal ended it. */
  code: number | null;
  /** Number of the signal that ended it, or null. */
  signal: number | null;
  userTimeUs: number;
  systemTimeUs: number;
  maxRssBytes: number;
  /** Length of the whole output on channels 2 and 3, in bytes. */
  outputEnd: number;
  errorEnd: number;
}

const NO_PAYLOAD = new Uint8Array(0);
/** How long a release that nobody waits for may take, in milliseconds. */
const RELEASE_MS = 10_000;
const nothing = () => undefined;

/** Sends RELEASE for an object and forgets it on this side. */
export function releaseObject(connection: AgentConnection, object: AgentObject, deadline: Deadline): Promise<void> {
  connection.remove(object.id);
  object.lost(new MayflyError("cancelled", `Object ${object.id} of the guest agent was released before its end`));
  return connection.request<void>(
    {
      type: FrameType.release,
      stream: streamOf(object.id, Channel.control),
      payload: NO_PAYLOAD,
      what: "the release",
      parse: nothing,
      failure: (errno) => requestFailure(`release object ${object.id}`, errno),
    },
    deadline,
  );
}

/** A process in the guest, started by exec: its streams, its signals and its exit. */
export class AgentProcess {
  /** The object's id: what {@link AgentProcess.attach} needs after a reconnect. */
  readonly object: number;
  /** The process' id in the guest; rejects when it could not be started. For an attached one: once the agent has confirmed it. */
  readonly pid: Promise<number>;
  /** Resolves when the process has ended and the consumer has kept all of its output; kept in the agent until {@link release}. */
  readonly exited: Promise<ExitStatus>;
  /** Standard input; `write` resolves when there is room in the window. */
  readonly stdin: OutgoingStream;
  readonly #connection: AgentConnection;
  readonly #object: AgentObject;

  private constructor(connection: AgentConnection, object: AgentObject, pid: Promise<number>) {
    this.#connection = connection;
    this.#object = object;
    this.object = object.id;
    this.stdin = object.input;
    this.pid = pid;
    pid.catch(nothing);
    this.exited = object.ended.then(({ errno: _, ...status }) => status);
    this.exited.catch(nothing);
  }

  /**
   * Sends EXEC now.
   * @throws `invalid_argument` for what cannot be sent; everything later rejects `pid` and `exited`.
   */
  static start(
    connection: AgentConnection,
    spec: ExecSpec,
    consumer: OutputConsumer,
    deadline: Deadline,
    kind: "lasting" | "transient" = "lasting",
  ): AgentProcess {
    const payload = encodeExec(spec);
    const command = spec.argv[0] ?? "";
    const object = new AgentObject(connection, consumer, kind);
    const request = {
      type: FrameType.exec,
      stream: streamOf(object.id, Channel.control),
      payload,
      what: `the start of ${JSON.stringify(command)}`,
      parse: decodePid,
      failure: (errno: number) => execFailure(command, spec.cwd ?? "/", errno),
    };
    const pid = connection.request(request, deadline);
    const process = new AgentProcess(connection, object, pid);
    pid.catch((error: unknown) => process.#giveUp(error));
    return process;
  }

  /** Goes on with a process that an earlier connection started. Its `stdin.offset` says where input goes on once `pid` resolved. */
  static attach(
    connection: AgentConnection,
    resume: ResumePoint & { pid: number },
    consumer: OutputConsumer,
  ): AgentProcess {
    const object = new AgentObject(connection, consumer, resume);
    return new AgentProcess(
      connection,
      object,
      object.confirmed.then(() => resume.pid),
    );
  }

  /** It did not start, or did not say so in time: then whatever became of it is to go. */
  #giveUp(error: unknown): void {
    this.#object.lost(error);
    const late = error instanceof MayflyError && (error.code === "deadline_exceeded" || error.code === "cancelled");
    if (late) this.release(Deadline.after(RELEASE_MS)).catch(nothing);
    else this.#connection.remove(this.object);
  }

  /** Sends a signal, with `tree` to every process of the tree. */
  signal(signal: number, tree: boolean, deadline: Deadline): Promise<void> {
    return this.#ask(FrameType.signal, () => encodeSignal(signal, tree), "send a signal to", deadline);
  }

  /** Tells the process' terminal its new size. */
  resize(rows: number, columns: number, deadline: Deadline): Promise<void> {
    return this.#ask(FrameType.resize, () => encodeResize(rows, columns), "resize the terminal of", deadline);
  }

  /** Has the agent forget the process: kills its tree if it still runs, drops its output. `exited` rejects if it was pending. */
  release(deadline: Deadline): Promise<void> {
    return releaseObject(this.#connection, this.#object, deadline);
  }

  /** What has arrived of its output, kept by the consumer or not. */
  get arrived(): OutputOffsets {
    return this.#object.arrived;
  }

  /** What the consumer has kept once no call of it is under way: where to attach after the connection was lost. */
  settled(): Promise<OutputOffsets> {
    return this.#object.settled();
  }

  async #ask(type: 17 | 18, encode: () => Uint8Array, what: string, deadline: Deadline): Promise<void> {
    const failure = (errno: number) => requestFailure(`${what} the process of object ${this.object}`, errno);
    const stream = streamOf(this.object, Channel.control);
    return this.#connection.request<void>(
      { type, stream, payload: encode(), what: `the request to ${what} a process`, parse: nothing, failure },
      deadline,
    );
  }
}
