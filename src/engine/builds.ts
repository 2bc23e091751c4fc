/** Builds under way: whoever asks for what is being built waits for that one. */
import { Deadline } from "../sys/deadline.ts";
import type { LoadedTemplate } from "../template/store.ts";

/** One build, and who is told of its steps. */
interface Build {
  result: Promise<LoadedTemplate>;
  /** Of whoever has begun it. */
  deadline: Deadline;
  listeners: Set<(step: string) => void>;
  step: string;
}

/** Makes one template. */
export type Builder = (onStep: (step: string) => void, deadline: Deadline) => Promise<LoadedTemplate>;

/** A timer may fire so much before its time. */
const TIMER_SLACK_MS = 2;

/** Builds by what they build. */
export class Builds {
  readonly #builds = new Map<string, Build>();
  readonly #closing = new AbortController();

  /** What is being built. */
  get keys(): string[] {
    return [...this.#builds.keys()];
  }

  /**
   * Joins the build of `key`, or starts it. Whoever waits for one that somebody else has begun and given up begins it again.
   * @param what it is, in the steps.
   */
  async run(
    key: string,
    what: string,
    builder: Builder,
    onStep: (step: string) => void,
    deadline: Deadline,
  ): Promise<LoadedTemplate> {
    const known = this.#builds.get(key);
    const build = known ?? this.#start(key, builder, deadline);
    onStep(`${build.step} (${what})`);
    build.listeners.add(onStep);
    try {
      // Our own has our deadline already, and knows better what was not done by then.
      return await (known === undefined ? build.result : deadline.race(build.result, "the template"));
    } catch (error) {
      if (known === undefined || !isOver(known.deadline) || isOver(deadline) || this.#closing.signal.aborted)
        throw error;
    } finally {
      build.listeners.delete(onStep);
    }
    return this.run(key, what, builder, onStep, deadline);
  }

  #start(key: string, builder: Builder, deadline: Deadline): Build {
    const signals = [this.#closing.signal, ...(deadline.signal === undefined ? [] : [deadline.signal])];
    const until = Deadline.after(deadline.remainingMs, AbortSignal.any(signals));
    const listeners = new Set<(step: string) => void>();
    const { promise: result, resolve } = Promise.withResolvers<LoadedTemplate>();
    const build: Build = { result, deadline: until, listeners, step: "building a template" };
    this.#builds.set(key, build);
    const tell = (step: string) => {
      build.step = step;
      for (const listener of listeners) listener(step);
    };
    resolve(builder(tell, until).finally(() => this.#builds.delete(key)));
    return build;
  }

  /** Ends all that are under way: their QEMUs would outlive this process. */
  async close(): Promise<void> {
    this.#closing.abort();
    await Promise.allSettled([...this.#builds.values()].map((build) => build.result));
  }
}

function isOver({ signal, remainingMs }: Deadline): boolean {
  return signal?.aborted === true || remainingMs < TIMER_SLACK_MS;
}
