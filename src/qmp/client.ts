/**
 * A QMP session (QEMU docs/interop/qmp-spec): greeting, capabilities, commands matched to answers by id, events.
 * States: connecting -> negotiating -> ready -> closed. The first cause of closing wins and rejects all pending work.
 */
import { MayflyError } from "../contract/errors.ts";
import { type ByteChannel, connectUnix } from "../sys/channel.ts";
import type { Deadline } from "../sys/deadline.ts";
import { LineSplitter, parseMessage, type QmpMessage } from "./framing.ts";

/** State of a session. */
export type QmpState = "connecting" | "negotiating" | "ready" | "closed";

/** An event as QEMU sent it. */
export interface QmpEvent {
  name: string;
  data: Record<string, unknown>;
}

interface Pending {
  command: string;
  resolve: (value: unknown) => void;
  reject: (error: MayflyError) => void;
}

interface EventWaiter {
  accept: (event: QmpEvent) => boolean;
  resolve: (event: QmpEvent) => void;
  reject: (error: MayflyError) => void;
}

/** One connection to one QEMU. Methods may be called concurrently; QEMU answers in order. */
export class QmpClient {
  #state: QmpState = "connecting";
  #channel: ByteChannel | undefined;
  readonly #splitter = new LineSplitter();
  readonly #pending = new Map<number, Pending>();
  readonly #waiters = new Set<EventWaiter>();
  #nextId = 0;
  #cause: MayflyError | undefined;
  readonly #greeting = Promise.withResolvers<string>();
  readonly #closed = Promise.withResolvers<MayflyError>();
  /** Called for every event, in order. */
  onEvent: ((event: QmpEvent) => void) | undefined;

  private constructor(readonly path: string) {
    this.#greeting.promise.catch(() => undefined);
  }

  /**
   * Connects to the QMP socket at `path`, waits for the greeting and negotiates no capabilities.
   * @param first a command that is sent in the same write, and answered by then: that saves a round trip.
   * @throws `qmp_disconnected`, `qmp_protocol_violation`, `connection_failed`, `deadline_exceeded`; `qmp_command_failed` for `first`.
   */
  static async connect(path: string, deadline: Deadline, first?: string): Promise<QmpClient> {
    const client = new QmpClient(path);
    try {
      client.#channel = await connectUnix(
        path,
        {
          data: (chunk) => client.#receive(chunk),
          closed: (cause) => client.#disconnected(cause),
        },
        deadline,
      );
      client.#enter("negotiating");
      const answers = [client.#ask("qmp_capabilities"), ...(first === undefined ? [] : [client.#ask(first)])];
      await deadline.race(client.#negotiate(answers), `the QMP greeting on ${path}`);
      return client;
    } catch (error) {
      client.close();
      throw error;
    }
  }

  get state(): QmpState {
    return this.#state;
  }

  /** Resolves with the cause when the session has ended; QEMU's exit shows here as `qmp_disconnected`. */
  get closed(): Promise<MayflyError> {
    return this.#closed.promise;
  }

  async #negotiate(answers: readonly Promise<unknown>[]): Promise<void> {
    await Promise.all([this.#greeting.promise, ...answers]);
    this.#enter("ready");
  }

  #ask(command: string, args?: Record<string, unknown>): Promise<unknown> {
    const id = this.#nextId++;
    const answer = new Promise<unknown>((resolve, reject) => this.#pending.set(id, { command, resolve, reject }));
    this.#send(args === undefined ? { execute: command, id } : { execute: command, arguments: args, id });
    return answer;
  }

  #enter(state: QmpState): void {
    if (this.#state !== "closed") this.#state = state;
  }

  /**
   * Runs a QMP command.
   * @returns the value of its `return` member; its shape is the command's, see QEMU's QMP reference.
   * @throws `qmp_command_failed` with QEMU's class and description, `qmp_disconnected`, `deadline_exceeded`.
   */
  execute(command: string, args: Record<string, unknown> | undefined, deadline: Deadline): Promise<unknown> {
    if (this.#state !== "ready") {
      return Promise.reject(
        this.#cause ?? new MayflyError("qmp_disconnected", `Cannot run ${command}: the QMP session is ${this.#state}`),
      );
    }
    return deadline.race(this.#ask(command, args), `the answer to QMP command ${command}`);
  }

  /** Waits for an event that `accept` takes. Register before the command that causes it. */
  waitForEvent(accept: (event: QmpEvent) => boolean, what: string, deadline: Deadline): Promise<QmpEvent> {
    if (this.#cause !== undefined) return Promise.reject(this.#cause);
    const { promise, resolve, reject } = Promise.withResolvers<QmpEvent>();
    const waiter: EventWaiter = { accept, resolve, reject };
    this.#waiters.add(waiter);
    return deadline.race(promise, what).finally(() => this.#waiters.delete(waiter));
  }

  /** Ends the session; pending work is rejected. QEMU goes on. */
  close(): void {
    this.#end(new MayflyError("qmp_disconnected", `The QMP session on ${this.path} was closed`));
  }

  #send(message: object): void {
    this.#channel?.write(Buffer.from(`${JSON.stringify(message)}\n`));
  }

  #receive(chunk: Uint8Array): void {
    try {
      for (const line of this.#splitter.push(chunk)) this.#dispatch(parseMessage(line));
    } catch (error) {
      this.#end(
        error instanceof MayflyError
          ? error
          : new MayflyError("internal", "Handling a QMP message failed", {
              cause: error,
            }),
      );
    }
  }

  #dispatch(message: QmpMessage): void {
    if (message.type === "greeting") {
      this.#greeting.resolve(message.version);
      return;
    }
    if (message.type === "event") {
      const event = { name: message.name, data: message.data };
      for (const waiter of this.#waiters) if (waiter.accept(event)) waiter.resolve(event);
      this.onEvent?.(event);
      return;
    }
    const pending = message.id === undefined ? undefined : this.#pending.get(message.id);
    if (message.id === undefined || pending === undefined) {
      throw new MayflyError(
        "qmp_protocol_violation",
        `QEMU answered a QMP command that was not asked (id ${message.id})`,
      );
    }
    this.#pending.delete(message.id);
    if (message.type === "return") pending.resolve(message.value);
    else pending.reject(commandFailed(pending.command, message));
  }

  #disconnected(cause: Error | undefined): void {
    const why = cause === undefined ? "closed its end" : cause.message;
    this.#end(new MayflyError("qmp_disconnected", `The QMP session on ${this.path} ended: QEMU ${why}`, { cause }));
  }

  #end(cause: MayflyError): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.#cause = cause;
    this.#channel?.close();
    this.#greeting.reject(cause);
    for (const pending of this.#pending.values()) pending.reject(cause);
    this.#pending.clear();
    for (const waiter of this.#waiters) waiter.reject(cause);
    this.#closed.resolve(cause);
  }
}

function commandFailed(command: string, error: { class: string; description: string }): MayflyError {
  return new MayflyError("qmp_command_failed", `QMP command ${command} failed: ${error.description}`, {
    details: { qmp: { class: error.class, description: error.description } },
  });
}
