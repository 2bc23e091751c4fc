/** One process in a VM over a stream socket: input with a window, output that waits for its reader, and the exit. */
import type { StreamReply, StreamRequest, Vm } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import { STDIN_WINDOW_BYTES, STREAM_CHANNELS } from "../contract/stream.ts";
import { deferred } from "./deferred.ts";
import { errorOfProblem } from "./problem.ts";
import type { MessageSocket, SocketEvents, Transport } from "./transport.ts";

/** The stream of output that a chunk belongs to; a terminal's is all `stdout`. */
export type OutputName = "stdout" | "stderr";

/** How a process ended: the code as a shell reports it (128 + signal), and the signal, 0 if none. */
export interface ProcessExit {
  exitCode: number;
  signal: number;
}

/** What a session tells its owner. */
export interface SessionEvents {
  /** Takes output. The bytes are only valid during the call unless copied. While the promise is open the process has to wait. */
  output(name: OutputName, bytes: Uint8Array): Promise<void> | undefined;
  /** Something is being made first, such as a template. */
  progress?(step: string): void;
  /** The process runs; its output comes after this. */
  started?(vm: Vm): void;
}

/** Longest binary message, in bytes. */
const MESSAGE_BYTES = 64 << 10;

/** A process seen through a stream socket. Made by {@link openSession}. */
export class Session {
  readonly #events: SessionEvents;
  readonly #started = deferred<Vm>();
  readonly #exited = deferred<ProcessExit>();
  #socket: MessageSocket | undefined;
  #inFlightBytes = 0;
  #room: (() => void) | undefined;
  #over = false;
  #hasStarted = false;
  /** Output whose turn has not come: that of before `started`, and what arrives while the owner is busy. */
  #waiting: { name: OutputName; bytes: Uint8Array }[] = [];
  #delivering: Promise<void> | undefined;

  constructor(events: SessionEvents) {
    this.#events = events;
  }

  /** Resolves with the VM once the process runs. @throws MayflyError as the daemon reports it. */
  get started(): Promise<Vm> {
    return this.#started.promise;
  }

  /** Resolves once the process has ended and all its output was taken. @throws MayflyError as the daemon reports it. */
  get exited(): Promise<ProcessExit> {
    return this.#exited.promise;
  }

  /** Sends standard input, all of it; resolves when it was sent, which waits for the daemon's window. Input for an ended process is dropped. */
  async write(bytes: Uint8Array): Promise<void> {
    let at = 0;
    while (at < bytes.length && !this.#over) {
      const room = Math.min(MESSAGE_BYTES, STDIN_WINDOW_BYTES - this.#inFlightBytes);
      if (room <= 0) {
        await new Promise<void>((resolve) => {
          this.#room = resolve;
        });
        continue;
      }
      const part = bytes.subarray(at, at + room);
      this.#inFlightBytes += part.length;
      this.#socket?.binary(STREAM_CHANNELS.stdin, part);
      at += part.length;
    }
  }

  /** Ends standard input. */
  endInput(): void {
    this.#send({ type: "eof" });
  }

  /** Tells the terminal's new size. */
  resize(rows: number, columns: number): void {
    this.#send({ type: "resize", rows, columns });
  }

  /** Sends a signal to the process. */
  signal(signal: number): void {
    this.#send({ type: "signal", signal });
  }

  /** Leaves; `exited` then rejects with `cancelled` unless the process has ended. */
  close(): void {
    this.#fail(new MayflyError("cancelled", "The stream was closed before the process ended"));
    this.#socket?.close();
  }

  /** The socket that carries the session, and the request that starts it. */
  begin(socket: MessageSocket, request: StreamRequest): void {
    this.#socket = socket;
    this.#send(request);
  }

  /** What the socket's events do. */
  readonly socketEvents: SocketEvents = {
    text: (message) => this.#take(JSON.parse(message) as StreamReply),
    binary: (message) => this.#takeOutput(message),
    closed: (cause) =>
      this.#fail(
        cause ?? new MayflyError("connection_failed", "The daemon closed the stream before the process ended"),
      ),
  };

  #send(request: StreamRequest): void {
    if (!this.#over) this.#socket?.text(JSON.stringify(request));
  }

  #take(reply: StreamReply): void {
    switch (reply.type) {
      case "progress":
        this.#events.progress?.(reply.step);
        return;
      case "started":
        this.#hasStarted = true;
        this.#events.started?.(reply.vm);
        this.#started.resolve(reply.vm);
        if (this.#waiting.length > 0) this.#holdUntil(Promise.resolve());
        return;
      case "ack":
        this.#inFlightBytes -= reply.bytes;
        this.#wakeWriter();
        return;
      case "exit":
        this.#afterOutput(() => {
          this.#exited.resolve({ exitCode: reply.exitCode, signal: reply.signal });
          this.#finish();
        });
        return;
      case "error":
        this.#afterOutput(() => this.#fail(errorOfProblem(reply.problem)));
    }
  }

  #takeOutput(message: Uint8Array): void {
    const name: OutputName = message[0] === STREAM_CHANNELS.stderr ? "stderr" : "stdout";
    const bytes = message.subarray(1);
    // The daemon sends output as soon as there is some, perhaps before it says that the process runs. The owner may take
    // none before that, so the socket must not be paused for it.
    if (this.#delivering !== undefined || !this.#hasStarted) {
      this.#waiting.push({ name, bytes: bytes.slice() });
      return;
    }
    const taken = this.#deliver(name, bytes);
    if (taken !== undefined) this.#holdUntil(taken);
  }

  /** Takes nothing more from the socket until `taken` and what waits after it are done. */
  #holdUntil(taken: Promise<void>): void {
    this.#socket?.pause();
    this.#delivering = this.#drain(taken);
  }

  #deliver(name: OutputName, bytes: Uint8Array): Promise<void> | undefined {
    try {
      return this.#events.output(name, bytes);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  async #drain(first: Promise<void>): Promise<void> {
    try {
      await first;
      for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
        await this.#deliver(next.name, next.bytes);
      }
      this.#delivering = undefined;
      this.#socket?.resume();
    } catch (error) {
      this.#delivering = undefined;
      this.#fail(error);
      this.#socket?.resume();
    }
  }

  /** Does `then` after all output that came before has been taken. */
  #afterOutput(then: () => void): void {
    if (this.#delivering === undefined) then();
    else void this.#delivering.then(then);
  }

  #fail(error: unknown): void {
    if (this.#over) return;
    this.#afterOutput(() => {
      this.#started.reject(error);
      this.#exited.reject(error);
      this.#finish();
    });
  }

  #finish(): void {
    this.#over = true;
    this.#wakeWriter();
    this.#socket?.close();
  }

  #wakeWriter(): void {
    const wake = this.#room;
    this.#room = undefined;
    wake?.();
  }
}

/** Opens a stream socket at `path` and starts a session on it. @throws MayflyError `daemon_unreachable`, and what the daemon refuses with. */
export async function openSession(
  transport: Transport,
  path: string,
  request: StreamRequest,
  events: SessionEvents,
): Promise<Session> {
  const session = new Session(events);
  session.begin(await transport.openSocket(path, session.socketEvents), request);
  return session;
}
