/**
 * A process that stands still, and copies of it: fork(2) of a program that knows nothing of it, with all of its threads. It is one that was stopped for
 * good, or the first copy of one that goes on.
 */
import { constants } from "node:os";
import { MayflyError } from "../contract/errors.ts";
import { waitForChild } from "./libc.ts";
import { LineProgram } from "./line-program.ts";
import { type ChildExit, ForeignProcess, identifyProcess, type ProcessIdentity } from "./process.ts";

/** Exit code of the launcher's program when the process, or its copy, was ended by somebody else. */
const NOT_FOUND = 127;

/** What a copy has that is not its parent's. */
export interface CopyRequest {
  uid: number;
  /** What is open here as the value becomes descriptor KEY there. */
  descriptors: ReadonlyMap<number, number>;
  /** Files of control groups that are open here, which it joins by. */
  groups: readonly number[];
  /** No other copy is wanted: it is the one that stands still that goes on. Of one that was stopped for good it must not be. */
  isLast?: boolean;
}

/** Users that copies can be, by uid. */
export interface UserRange {
  first: number;
  count: number;
}

/** A process that is to be copied: its memory is shared with the copies until one of them writes. */
export class ParentProcess implements Disposable {
  #isGone = false;
  /** The first copy of one that goes on, while it stands still. */
  #stem: ProcessIdentity | undefined;

  private constructor(
    private readonly program: LineProgram,
    public pid: number | undefined,
  ) {
    this.program.exited.then(() => {
      this.#isGone = true;
      if (this.#stem !== undefined) endCopy(this.#stem);
    });
  }

  /**
   * Begins to stop a child of ours for good. Nobody may be connected to it.
   * @param launcher path of the launcher, whose program keeps it stopped; it ends with that, and that with us.
   */
  static stop(launcher: string, { pid, startTicks }: ProcessIdentity, { first, count }: UserRange): ParentProcess {
    const numbers = [pid, startTicks, first, count].map(String);
    return new ParentProcess(new LineProgram([launcher, "--parent", ...numbers]), pid);
  }

  /** Makes one that is for no process yet: {@link of} says for which. */
  static spare(launcher: string, { first, count }: UserRange): ParentProcess {
    return new ParentProcess(new LineProgram([launcher, "--fork", String(first), String(count)]), undefined);
  }

  /** Waits until it is stopped. @throws `qemu_spawn_failed`, `qemu_exited` if it cannot be copied; it may have ended then. */
  async stopped(): Promise<void> {
    if ((await this.program.next()) !== "ready") throw await this.#failed();
  }

  /** Looks at a process that goes on; {@link take} makes its first copy. @throws `qemu_spawn_failed` if it cannot be copied, `qemu_exited`. */
  async of({ pid, startTicks }: ProcessIdentity): Promise<void> {
    this.pid = pid;
    if ((await this.program.ask(`${pid} ${startTicks}`)) !== "ready") throw await this.#failed();
  }

  /**
   * Copies one that goes on, which stands still meanwhile: for some milliseconds.
   * @param onStopped is called when it does: what it is told from then on its copy has not heard.
   * @returns pid of the copy, which stands still.
   * @throws `qemu_spawn_failed`, `qemu_exited` if it or its copy was killed; else it goes on.
   */
  async take(onStopped: () => void): Promise<number> {
    const stopped = this.program.ask("take");
    const taken = this.program.next();
    const first = await stopped;
    if (first === "stopped") onStopped();
    const pid = await this.#answered(first === "stopped" ? taken : stopped);
    this.#stem = identifyProcess(pid);
    return pid;
  }

  /**
   * Makes a copy, which goes on at once. It is a child of the process' own parent.
   * @returns its pid.
   * @throws `qemu_spawn_failed`, or `qemu_exited` if it or its copy was killed: what stands still has ended then.
   */
  async copy({ uid, descriptors, groups, isLast = false }: CopyRequest): Promise<number> {
    const own = [...descriptors].map(([there, here]) => `${there}=${here}`);
    const words = [...(isLast ? ["last"] : []), uid, ...own, ...groups.map((file) => `join=${file}`)];
    const pid = await this.#answered(this.program.ask(words.join(" ")));
    if (isLast) this.#stem = undefined;
    return pid;
  }

  /**
   * Writes an image of it into a file that is open here: from that the launcher becomes a process that goes on as one of its copies would.
   * @param data an open copy of the file that it has open and mapped: its own pages come in there, and who goes on maps that one. undefined: they come into
   * the image, and who goes on gets copies of them over the files that it has mapped.
   * @param given descriptors that who goes on has open already.
   * @throws as {@link copy}; what stands still has ended then.
   */
  async writeImage(file: number, data: number | undefined, given: readonly number[]): Promise<void> {
    const asked = this.program.ask(["image", file, data ?? "-", ...given].join(" "));
    if ((await asked) !== "image") throw await this.#failed();
  }

  async #answered(asked: Promise<string | undefined>): Promise<number> {
    const answer = await asked;
    if (answer !== undefined && /^[1-9]\d*$/.test(answer)) return Number(answer);
    // It had begun one, and ended it.
    if (answer?.startsWith("-")) endCopy(-Number(answer));
    throw await this.#failed();
  }

  /** Resolves when the program that keeps it has ended, and it is about to, or has. */
  get gone(): Promise<unknown> {
    return this.program.exited;
  }

  /** Whether it can be copied no more: its program has ended, as when a copy has failed. */
  get isGone(): boolean {
    return this.#isGone;
  }

  async #failed(): Promise<MayflyError> {
    this.#isGone = true;
    const why = await this.program.lastWords();
    const wasKilled = (await this.program.exited) === NOT_FOUND;
    return new MayflyError(wasKilled ? "qemu_exited" : "qemu_spawn_failed", `Cannot copy process ${this.pid}: ${why}`);
  }

  /** Ends it. */
  [Symbol.dispose](): void {
    this.program[Symbol.dispose]();
  }
}

/** Ends a copy, and waits until it has if it is a child of ours, which takes milliseconds and blocks: for what has failed only. */
export function endCopy(copy: number | ProcessIdentity): void {
  const identity = typeof copy === "number" ? identifyProcess(copy) : copy;
  using process = identity && ForeignProcess.open(identity);
  process?.signal(constants.signals.SIGKILL);
  waitForChild(typeof copy === "number" ? copy : copy.pid, "until it has ended");
}

/** Waits for a copy that has ended, so that nothing of it is left. @returns how it ended; undefined if that is not known. */
export function buryCopy(pid: number): ChildExit | undefined {
  const status = waitForChild(pid, "if it has ended");
  if (status === undefined) return undefined;
  const number = status & 0x7f;
  if (number === 0) return { exitCode: (status >> 8) & 0xff, signal: null };
  const [name = `signal ${number}`] = Object.entries(constants.signals).find(([, value]) => value === number) ?? [];
  return { exitCode: null, signal: name };
}
