/** A process in a VM with any number of clients: its output goes to the logs and to each of them, and is kept when all have it. */
import type { AgentProcess } from "../agent/process.ts";
import type { AppendLog } from "../sys/append-log.ts";
import { Deadline } from "../sys/deadline.ts";
import { diskFull } from "../sys/publish.ts";
import { LIMITS_MS } from "./config.ts";
import type { ExitStatus, OutputChannel, OutputSink, ProcessSession } from "./interface.ts";

/** Exit code of a process that was killed at its time limit, as timeout(1) has it. */
export const TIMED_OUT = 124;
const SIGKILL = 9;
const SIGNAL_BASE = 128;

/** Logs of the two output channels. */
export interface OutputLogs {
  stdout: AppendLog;
  stderr: AppendLog;
}

/** Offsets in the logs at which the output of a process begins: each process of a VM that is started again has streams of its own. */
export interface LogBase {
  stdout: number;
  stderr: number;
}

/** The base of a process that is started now: everything before it is kept. */
export function baseNow(logs: OutputLogs | undefined): LogBase {
  return { stdout: logs?.stdout.offset ?? 0, stderr: logs?.stderr.offset ?? 0 };
}

/** One process and its listeners. */
export class Workload {
  readonly #sinks = new Set<OutputSink>();
  readonly #logs: OutputLogs | undefined;
  #process: AgentProcess | undefined;
  #timedOut = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #logFailure: unknown;
  readonly #exited = Promise.withResolvers<ExitStatus>();

  constructor(
    logs: OutputLogs | undefined,
    sink: OutputSink | undefined,
    readonly base: LogBase = baseNow(logs),
  ) {
    this.#logs = logs;
    if (sink !== undefined) this.#sinks.add(sink);
    this.#exited.promise.catch(() => undefined);
  }

  /** Takes output of the agent's process; to be given to `exec` or `attachProcess`. Resolves when it is kept. */
  readonly consume = (agentChannel: 2 | 3, chunk: Uint8Array, offset: number): void | Promise<void> => {
    const channel: OutputChannel = agentChannel === 2 ? 1 : 2;
    this.#log(channel, chunk, offset);
    if (this.#sinks.size === 0) return;
    const waits = [...this.#sinks].map((sink) => this.#give(sink, channel, chunk)).filter((wait) => wait !== undefined);
    if (waits.length > 0) return Promise.all(waits).then(() => undefined);
  };

  /** Binds the agent's process, which has been told to start, and its time limit. */
  bind(process: AgentProcess, killAtMs: number | undefined): void {
    this.#process = process;
    process.exited.then(
      (status) => {
        clearTimeout(this.#timer);
        const signal = status.signal ?? 0;
        const exitCode = this.#timedOut ? TIMED_OUT : (status.code ?? SIGNAL_BASE + signal);
        this.#exited.resolve({ exitCode, signal });
      },
      (error: unknown) => {
        clearTimeout(this.#timer);
        this.#exited.reject(error);
      },
    );
    if (killAtMs === undefined) return;
    this.#timer = setTimeout(() => this.#expire(process), Math.max(0, killAtMs - Date.now()));
  }

  /** Resolves when it has ended and all output is kept; rejects when it could not start or the VM ended before. */
  get exited(): Promise<ExitStatus> {
    return this.#exited.promise;
  }

  /** The agent's process. */
  get process(): AgentProcess | undefined {
    return this.#process;
  }

  /** Whether a client is there that takes its output. */
  get isAttached(): boolean {
    return this.#sinks.size > 0;
  }

  /** Whether it was killed at its time limit. */
  get timedOut(): boolean {
    return this.#timedOut;
  }

  /** Why output could not be logged, if it could not. */
  get logFailure(): unknown {
    return this.#logFailure;
  }

  /** A client's view of it. Its sink must have been given before, or is added now. */
  session(sink: OutputSink | undefined): ProcessSession {
    if (sink !== undefined) this.#sinks.add(sink);
    const deadline = () => Deadline.after(LIMITS_MS.request);
    const quietly = (work: Promise<unknown> | undefined) => void work?.catch(() => undefined);
    return {
      write: async (bytes) => {
        await this.#process?.stdin.write(bytes);
      },
      closeInput: () => quietly(Promise.resolve(this.#process?.stdin.end())),
      resize: (rows, columns) => quietly(this.#process?.resize(rows, columns, deadline())),
      signal: (signal) => quietly(this.#process?.signal(signal, false, deadline())),
      exited: this.exited,
      detach: () => {
        if (sink !== undefined) this.#sinks.delete(sink);
      },
    };
  }

  #expire(process: AgentProcess): void {
    this.#timedOut = true;
    process.signal(SIGKILL, true, Deadline.after(LIMITS_MS.request)).catch(() => undefined);
  }

  /** A client that fails is detached: its process goes on. */
  #give(sink: OutputSink, channel: OutputChannel, chunk: Uint8Array): Promise<void> | undefined {
    const drop = () => {
      this.#sinks.delete(sink);
    };
    try {
      return sink.output(channel, chunk)?.catch(drop);
    } catch {
      drop();
      return undefined;
    }
  }

  /** A full disk must not stop the workload: logging ends, and the VM's record says so. */
  #log(channel: OutputChannel, chunk: Uint8Array, offset: number): void {
    if (this.#logs === undefined || this.#logFailure !== undefined) return;
    const name = channel === 1 ? "stdout" : "stderr";
    const log = this.#logs[name];
    try {
      // An earlier daemon could not log everything that it took.
      log.skipTo(this.base[name] + offset);
      log.append(chunk);
    } catch (error) {
      this.#logFailure = diskFull(error, "the VM's log");
    }
  }
}
