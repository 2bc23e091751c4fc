/** Gives memory back while nothing happens: a garbage collection takes some milliseconds, which nobody then waits for. */

/** How long nothing must have happened. */
const IDLE_MS = 1_000;

/** Collects garbage once after each spell of activity. */
export class IdleCollector implements Disposable {
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** Something happened: the collection is put off. */
  readonly touch = (): void => {
    if (this.#timer !== undefined) {
      this.#timer.refresh();
      return;
    }
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      Bun.shrink();
    }, IDLE_MS);
    this.#timer.unref();
  };

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }
}
