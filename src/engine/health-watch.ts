/** The checks of one VM, one after the other: never two at a time, none once it is stopped. */
import type { Health } from "../contract/container.ts";
import type { Clock } from "../sys/clock.ts";
import { type HealthPlan, healthAfter, NO_EXIT_CODE, pauseBeforeCheck } from "./health.ts";

/** How one check ended. */
export interface CheckEnd {
  exitCode: number;
  output: string;
}

/** What a watch needs of its VM. */
export interface CheckedVm {
  /** Milliseconds since its main process started. */
  sinceStartMs: number;
  health: Health;
  /** Whether it stands still because nothing was under way: it is as healthy as it was, and is not woken up to be asked. */
  isResting?(): boolean;
  /** Runs the command once. When the signal fires it ends what it runs, and resolves or rejects once that has ended. */
  check(signal: AbortSignal): Promise<CheckEnd>;
  /** Takes the health after each check. */
  tell(health: Health, end: CheckEnd): void;
}

/** Checks a VM from its construction until {@link stop}. */
export class HealthWatch {
  readonly #stopping = new AbortController();
  readonly #startedMs: number;
  #health: Health;
  #cancel: () => void = () => undefined;

  constructor(
    private readonly vm: CheckedVm,
    private readonly plan: HealthPlan,
    private readonly clock: Clock,
  ) {
    this.#startedMs = clock.now() - vm.sinceStartMs;
    this.#health = vm.health;
    this.#wait();
  }

  /** No more checks; one that runs is ended, and its result is not told. */
  stop(): void {
    this.#cancel();
    this.#stopping.abort();
  }

  #wait(): void {
    const pauseMs = pauseBeforeCheck(this.#health, this.plan, this.clock.now() - this.#startedMs);
    this.#cancel = this.clock.after(pauseMs, () => void this.#check());
  }

  async #check(): Promise<void> {
    if (this.vm.isResting?.() === true) return this.#wait();
    const beganMs = this.clock.now() - this.#startedMs;
    const late = new AbortController();
    const signal = AbortSignal.any([late.signal, this.#stopping.signal]);
    let end: CheckEnd | undefined;
    const cancel = this.clock.after(this.plan.timeoutMs, () => {
      end = { exitCode: NO_EXIT_CODE, output: `The check was not done within ${this.plan.timeoutMs} ms` };
      this.#take(end, beganMs);
      late.abort();
    });
    const done = await this.vm.check(signal).catch(failed);
    cancel();
    if (this.#stopping.signal.aborted) return;
    if (end === undefined) this.#take(done, beganMs);
    this.#wait();
  }

  #take(end: CheckEnd, beganMs: number): void {
    if (this.#stopping.signal.aborted) return;
    this.#health = healthAfter(this.#health, this.plan, { ...end, beganMs });
    this.vm.tell(this.#health, end);
  }
}

/** What cannot be run is a failed check, as with docker. */
function failed(error: unknown): CheckEnd {
  return { exitCode: NO_EXIT_CODE, output: error instanceof Error ? error.message : String(error) };
}
