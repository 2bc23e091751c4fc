/** A process that stands still for good, and copies of it: fork(2) of a program that knows nothing of it, with all of its threads. */
import { constants } from "node:os";
import { MayflyError } from "../contract/errors.ts";
import { waitForChild } from "./libc.ts";
import { LineProgram } from "./line-program.ts";
import { type ChildExit, killChild, type ProcessIdentity } from "./process.ts";

/** Exit code of the launcher's program when the process, or its copy, was ended by somebody else. */
const NOT_FOUND = 127;

/** What a copy has that is not its parent's. */
export interface CopyRequest {
  uid: number;
  /** What is open here as the value becomes descriptor KEY there. */
  descriptors: ReadonlyMap<number, number>;
  /** Files of control groups that are open here, which it joins by. */
  groups: readonly number[];
}

/** A child of ours that is to be copied: its memory is shared with the copies until one of them writes. */
export class ParentProcess implements Disposable {
  #isGone = false;

  private constructor(
    readonly pid: number,
    private readonly program: LineProgram,
  ) {}

  /**
   * Begins to stop a child of ours for good. Nobody may be connected to it, and its threads wait for something.
   * @param launcher path of the launcher, whose program keeps it stopped; it ends with that, and that with us.
   */
  static stop(launcher: string, process: ProcessIdentity): ParentProcess {
    const place = [process.pid, process.startTicks].map(String);
    return new ParentProcess(process.pid, new LineProgram([launcher, "--parent", ...place]));
  }

  /** Waits until it is stopped. @throws `qemu_spawn_failed`, `qemu_exited` if it cannot be copied; it may have ended then. */
  async stopped(): Promise<void> {
    if ((await this.program.next()) !== "ready") throw await this.#failed();
  }

  /**
   * Makes a copy, which goes on at once. It is a child of ours, too.
   * @returns its pid.
   * @throws `qemu_spawn_failed`, or `qemu_exited` if it or its copy was killed: the parent has ended then.
   */
  async copy({ uid, descriptors, groups }: CopyRequest): Promise<number> {
    const own = [...descriptors].map(([there, here]) => `${there}=${here}`);
    const answer = await this.program.ask([uid, ...own, ...groups.map((file) => `join=${file}`)].join(" "));
    if (answer !== undefined && /^[1-9]\d*$/.test(answer)) return Number(answer);
    // It had begun one, and ended it.
    if (answer?.startsWith("-")) endCopy(-Number(answer));
    throw await this.#failed();
  }

  /** Resolves when the program that keeps it has ended, and it is about to, or has. */
  get gone(): Promise<unknown> {
    return this.program.exited;
  }

  /** Whether it can be copied no more: a copy has failed. */
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

/** Ends a copy, and waits until it has, which takes milliseconds and blocks: for what has failed only. */
export function endCopy(pid: number): void {
  killChild(pid);
  waitForChild(pid, "until it has ended");
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
