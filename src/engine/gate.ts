/** A gate that lets a bounded number of starts through at a time, in the order they came. */
import type { MayflyError } from "../contract/errors.ts";
import type { Deadline } from "../sys/deadline.ts";

/** More QEMUs starting at once than cores to start them only makes each one slower. */
export class Gate {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(width: number) {
    this.#free = width;
  }

  /** Whether nobody waits and a place is free. */
  get idle(): boolean {
    return this.#free > 0 && this.#waiting.length === 0;
  }

  /** Waits for a place. Disposing the result gives it back. */
  async enter(): Promise<Disposable> {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    let left = false;
    return {
      [Symbol.dispose]: () => {
        if (left) return;
        left = true;
        const next = this.#waiting.shift();
        if (next === undefined) this.#free += 1;
        else next();
      },
    };
  }

  /** Waits for a place, at most until the deadline or its signal: one that comes later passes to the next. @throws as {@link Deadline.race} does. */
  async enterBy(deadline: Deadline, what: string, expired?: () => MayflyError): Promise<Disposable> {
    const entered = this.enter();
    try {
      return await deadline.race(entered, what, expired);
    } catch (error) {
      void entered.then((place) => place[Symbol.dispose]());
      throw error;
    }
  }
}
