/** Subjects that take turns: one sample of each in every round, in an order that shifts; what fails is told, counted, and left out at last. */
import type { Listener } from "./prepare.ts";
import type { Samples } from "./samples.ts";

/** Failures after which a subject is left out. */
const GIVE_UP_AFTER = 3;

/** What takes one sample. */
export interface Taker {
  name: string;
  take(samples: Samples): Promise<void>;
}

/** What failed: it is told and counted, and the rest goes on. */
export class Failures {
  readonly #counts = new Map<string, number>();

  constructor(private readonly listener: Listener) {}

  get count(): number {
    return [...this.#counts.values()].reduce((sum, count) => sum + count, 0);
  }

  /** Whether something failed so often that it is no longer tried. */
  isGivenUp(name: string): boolean {
    return (this.#counts.get(name) ?? 0) >= GIVE_UP_AFTER;
  }

  /** Does something that may fail. @throws only when the benchmark was interrupted. */
  async watch(name: string, measure: () => Promise<void>): Promise<void> {
    try {
      await measure();
    } catch (error) {
      if (this.listener.signal.aborted) throw error;
      this.#counts.set(name, (this.#counts.get(name) ?? 0) + 1);
      const more = this.isGivenUp(name) ? "; it is left out from here on" : "";
      this.listener.note(`${name} failed: ${error instanceof Error ? error.message : error}${more}`);
    }
  }
}

/** One round. @param settle is waited for before each sample. */
export async function takeTurns(
  takers: readonly Taker[],
  round: number,
  into: Samples,
  { failures, settle }: { failures: Failures; settle: () => Promise<void> },
): Promise<void> {
  for (let index = 0; index < takers.length; index += 1) {
    const taker = takers[(round + index) % takers.length];
    if (taker === undefined || failures.isGivenUp(taker.name)) continue;
    await settle();
    await failures.watch(taker.name, () => taker.take(into));
  }
}
