/** A process in a VM connected to this terminal: input, output, signals, size, and the exit code. */
import type { OutputName, Session, SessionEvents } from "../client/session.ts";
import { MayflyError } from "../contract/errors.ts";
import { BrokenPipe, printError, standardInput, standardOutput } from "../sys/standard-io.ts";
import { enterRawMode, isSignalIgnored, isTerminal, terminalSize } from "../sys/terminal.ts";
import { detachFilter } from "./detach-keys.ts";
import type { ProgressLine } from "./progress.ts";
import { EXIT } from "./report.ts";
import { signalNumber } from "./signals.ts";

/** How a process is connected. */
export interface Attachment {
  /** Forward standard input. */
  stdin: boolean;
  /** The process has a terminal. */
  terminal: boolean;
  /** Bytes of the keys that leave it; `undefined`: none. */
  detachKeys: readonly number[] | undefined;
  /** Milliseconds after which the daemon kills the process, if any. */
  timeoutMs: number | undefined;
  /** Whether signals to us go to the process; otherwise they have us leave it. */
  passSignals: boolean;
  /** Whether a process that is not wanted any more before it has started may simply be left: the daemon removes its VM. */
  removedWhenLeft: boolean;
}

/** How long a process has to end after its output's reader or its terminal has gone, before it is killed and after that. */
const END_GRACE_MS = 2000;
/** Most of a start's delay that can have been news on its way; a longer one was a template being built. */
const START_DELAY_LIMIT_MS = 1000;
/** Termination signals after which the process is left alone, as docker does. */
const FORCE_SIGNALS = 3;
const FORWARDED = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"] as const;
const SIGKILL = 9;
const SIGPIPE = 13;

/**
 * Fails as docker does when a terminal is wanted for typed input that comes from no terminal.
 * @throws MayflyError `invalid_argument`.
 */
export function checkTerminal(stdin: boolean, terminal: boolean): void {
  if (!stdin || !terminal || isTerminal(0)) return;
  throw new MayflyError("invalid_argument", "the input device is not a TTY", {
    details: { remedy: "leave out -t when standard input is a pipe or a file" },
  });
}

/** Size of the terminal that the process is to have: that of standard output, or of standard input. */
export function currentTerminalSize(): { rows: number; columns: number } {
  return terminalSize(1) ?? terminalSize(0) ?? { rows: 24, columns: 80 };
}

/**
 * Runs a session to its end, connected to the standard streams.
 * @param open starts it with the events it is given.
 * @returns the exit code: the process' own, 124 when its time was over, 141 when nobody reads the output, 0 after the detach keys.
 */
export async function runAttached(
  open: (events: SessionEvents) => Promise<Session>,
  attachment: Attachment,
): Promise<number> {
  const connection = new AttachedSession(attachment);
  try {
    return await connection.run(open);
  } finally {
    connection.restore();
  }
}

class AttachedSession {
  readonly #attachment: Attachment;
  readonly #left = Promise.withResolvers<number>();
  #session: Session | undefined;
  #restoreTerminal: () => void = () => {};
  #progress: ProgressLine | undefined;
  #progressOver = false;
  readonly #askedMs = performance.now();
  #startedMs: number | undefined;
  #outputGone: unknown;
  #terminations = 0;

  constructor(attachment: Attachment) {
    this.#attachment = attachment;
  }

  async run(open: (events: SessionEvents) => Promise<Session>): Promise<number> {
    for (const name of FORWARDED) {
      if (!isSignalIgnored(signalNumber(name))) process.on(name, () => this.#forward(name));
    }
    const opening = open({
      output: (name, bytes) => this.#output(name, bytes),
      progress: (step) => void this.#showProgress(step),
      started: () => this.#begin(),
    });
    const session = await Promise.race([opening, this.#left.promise]);
    if (typeof session === "number") return session;
    this.#session = session;
    const { stdin, terminal } = this.#attachment;
    if (stdin && !terminal) void this.#pumpInput(session);
    const exit = await Promise.race([session.exited, this.#left.promise]);
    if (typeof exit === "number") return exit;
    if (this.#outputGone instanceof BrokenPipe) return EXIT.brokenPipe;
    if (this.#outputGone !== undefined) throw this.#outputGone;
    return exit.signal === SIGKILL && this.#isTimeOver() ? EXIT.timeout : exit.exitCode;
  }

  /** Whether the daemon has killed it for its time limit. Its clock began before we heard of the start, so that delay counts as well. */
  #isTimeOver(): boolean {
    const { timeoutMs } = this.#attachment;
    if (timeoutMs === undefined || this.#startedMs === undefined) return false;
    const delayMs = Math.min(this.#startedMs - this.#askedMs, START_DELAY_LIMIT_MS);
    return performance.now() - this.#startedMs + delayMs >= timeoutMs;
  }

  /** The process runs: from now on keys are its own. */
  #begin(): void {
    this.#startedMs = performance.now();
    this.#endProgress();
    const session = this.#session;
    if (session === undefined || !this.#attachment.terminal) return;
    this.#connectTerminal(session);
    if (this.#attachment.stdin) void this.#pumpInput(session);
  }

  restore(): void {
    this.#endProgress();
    this.#restoreTerminal();
  }

  #output(name: OutputName, bytes: Uint8Array): Promise<void> | undefined {
    if (this.#outputGone !== undefined) return undefined;
    try {
      const written = standardOutput(name === "stdout" ? 1 : 2).write(bytes);
      return written?.catch((error: unknown) => this.#outputFailed(error));
    } catch (error) {
      this.#outputFailed(error);
      return undefined;
    }
  }

  /** Nobody takes the output: the process is told so, then killed, then left. */
  #outputFailed(error: unknown): void {
    if (this.#outputGone !== undefined) return;
    this.#outputGone = error;
    const code = error instanceof BrokenPipe ? EXIT.brokenPipe : EXIT.failure;
    this.#endWith(SIGPIPE, code);
  }

  /** Sends a signal, SIGKILL after a grace, and goes with `code` if that does not end it either. */
  #endWith(signal: number, code: number): void {
    this.#session?.signal(signal);
    setTimeout(() => {
      this.#session?.signal(SIGKILL);
      setTimeout(() => this.#left.resolve(code), END_GRACE_MS);
    }, END_GRACE_MS);
  }

  #forward(name: (typeof FORWARDED)[number]): void {
    const signal = signalNumber(name);
    if (!this.#attachment.passSignals) {
      this.#left.resolve(EXIT.signalBase + signal);
      return;
    }
    if (name === "SIGINT" || name === "SIGTERM") this.#terminations += 1;
    const session = this.#session;
    const notStarted = this.#startedMs === undefined && this.#attachment.removedWhenLeft;
    if (session === undefined || notStarted) {
      this.#left.resolve(EXIT.signalBase + signal);
      return;
    }
    if (this.#terminations >= FORCE_SIGNALS) {
      void printError("mayfly: left the process after three termination signals; it may still run\n");
      this.#left.resolve(EXIT.signalBase + signal);
      return;
    }
    session.signal(signal);
    // The terminal is gone: nobody will ask again.
    if (name === "SIGHUP") setTimeout(() => this.#left.resolve(EXIT.signalBase + signal), END_GRACE_MS);
  }

  #connectTerminal(session: Session): void {
    process.on("SIGWINCH", () => {
      const { rows, columns } = currentTerminalSize();
      session.resize(rows, columns);
    });
    if (!this.#attachment.stdin) return;
    this.#restoreTerminal = enterRawMode(0);
    process.on("exit", this.#restoreTerminal);
  }

  async #pumpInput(session: Session): Promise<void> {
    const { terminal, detachKeys } = this.#attachment;
    const filter = terminal && detachKeys !== undefined ? detachFilter(detachKeys) : undefined;
    try {
      for await (const chunk of standardInput()) {
        const { bytes, detach } = filter === undefined ? { bytes: chunk, detach: false } : filter(chunk);
        await session.write(bytes);
        if (detach) {
          this.#left.resolve(0);
          return;
        }
      }
    } catch {
      // Standard input cannot be read (its terminal is gone): that is its end.
    }
    session.endInput();
  }

  async #showProgress(step: string): Promise<void> {
    const { progressLine } = await import("./progress.ts");
    if (this.#progressOver) return;
    this.#progress ??= progressLine();
    this.#progress.show(step);
  }

  #endProgress(): void {
    this.#progressOver = true;
    this.#progress?.clear();
  }
}
