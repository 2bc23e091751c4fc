/** Time as something that is given to those who wait for it, so that tests need not wait. */
import { nowMs } from "./deadline.ts";

/** Longest that a timer of the runtime takes; a longer one would fire at once. */
const LONGEST_MS = 2 ** 31 - 1;

/** A clock and its timers. */
export interface Clock {
  /** Milliseconds of a clock that never jumps. */
  now(): number;
  /** Calls `then` once after so many milliseconds (at most 24 days). @returns what prevents it. */
  after(ms: number, then: () => void): () => void;
}

/** The machine's own. Its timers do not keep the process alive. */
export const systemClock: Clock = {
  now: nowMs,
  after(ms, then) {
    const timer = setTimeout(then, Math.min(Math.max(0, ms), LONGEST_MS)).unref();
    return () => clearTimeout(timer);
  },
};
