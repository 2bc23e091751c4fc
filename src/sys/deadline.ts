/** One deadline threaded through an operation: every wait races it. */
import { MayflyError } from "../contract/errors.ts";

/** Milliseconds of a clock that never jumps, with fractions. */
export function nowMs(): number {
  return performance.now();
}

/** Wall-clock time in nanoseconds since 1970, as precise as the host gives it. */
export function realtimeNs(): bigint {
  return BigInt(Math.round((performance.timeOrigin + performance.now()) * 1000)) * 1000n;
}

/** Lets time pass where no event tells that a wait is over. Never on the path of a request. */
export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** A point in time after which an operation fails, and the signal that cancels it before. */
export class Deadline {
  readonly #atMs: number;
  readonly #limitMs: number;
  readonly signal: AbortSignal | undefined;

  private constructor(limitMs: number, atMs: number, signal: AbortSignal | undefined) {
    this.#limitMs = limitMs;
    this.#atMs = atMs;
    this.signal = signal;
  }

  /** A deadline `limitMs` milliseconds from now (Infinity: none), cancelled early by `signal`. */
  static after(limitMs: number, signal?: AbortSignal): Deadline {
    return new Deadline(limitMs, nowMs() + limitMs, signal);
  }

  /** The earlier of this deadline and one `limitMs` from now, with the same signal. */
  within(limitMs: number): Deadline {
    return limitMs < this.remainingMs ? Deadline.after(limitMs, this.signal) : this;
  }

  /** Milliseconds left, 0 when it has passed. */
  get remainingMs(): number {
    return Math.max(0, this.#atMs - nowMs());
  }

  /**
   * Waits for `promise`, at most until the deadline or until the signal.
   * @param expired makes the error for the deadline; without it a `deadline_exceeded` naming `what`.
   * @throws `cancelled` when the signal fires first.
   */
  race<T>(promise: Promise<T>, what: string, expired?: () => MayflyError): Promise<T> {
    const { promise: result, resolve, reject } = Promise.withResolvers<T>();
    const cancelled = () => reject(new MayflyError("cancelled", `Cancelled while waiting for ${what}`));
    if (this.signal?.aborted) {
      promise.catch(() => undefined);
      cancelled();
      return result;
    }
    const fail = () =>
      reject(
        expired?.() ??
          new MayflyError("deadline_exceeded", `${what} did not happen within ${Math.round(this.#limitMs)} ms`),
      );
    const timer = Number.isFinite(this.#atMs) ? setTimeout(fail, Math.min(this.remainingMs, 2 ** 31 - 1)) : undefined;
    this.signal?.addEventListener("abort", cancelled, { once: true });
    promise.then(resolve, reject);
    return result.finally(() => {
      clearTimeout(timer);
      this.signal?.removeEventListener("abort", cancelled);
    });
  }
}
