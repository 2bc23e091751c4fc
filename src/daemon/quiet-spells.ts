/** Something that is done when nothing has happened for a while, once in each such spell. */
import type { Clock } from "../sys/clock.ts";

/** Watches for the beginning of quiet spells. It costs those who {@link touch} it next to nothing. */
export class QuietSpells implements Disposable {
  readonly #clock: Clock;
  readonly #quietMs: number;
  readonly #then: () => void;
  #lastMs = 0;
  #cancel: (() => void) | undefined;
  #disposed = false;

  /** @param then what is done when nothing has happened for `quietMs` milliseconds, after something has. */
  constructor(clock: Clock, quietMs: number, then: () => void) {
    this.#clock = clock;
    this.#quietMs = quietMs;
    this.#then = then;
  }

  /** Something happened. */
  touch(): void {
    this.#lastMs = this.#clock.now();
    if (this.#cancel === undefined && !this.#disposed) this.#wait(this.#quietMs);
  }

  /** Nothing is done any more. */
  [Symbol.dispose](): void {
    this.#disposed = true;
    this.#cancel?.();
    this.#cancel = undefined;
  }

  #wait(ms: number): void {
    this.#cancel = this.#clock.after(ms, () => {
      this.#cancel = undefined;
      const leftMs = this.#lastMs + this.#quietMs - this.#clock.now();
      if (leftMs > 0) this.#wait(leftMs);
      else this.#then();
    });
  }
}
