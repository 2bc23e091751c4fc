/** Waits for a daemon's pools without asking again and again: its events say when to look. */
import type { Client } from "../src/client/client.ts";
import type { SystemInfo } from "../src/contract/api.ts";
import type { Deadline } from "../src/sys/deadline.ts";

/** What a daemon's pools hold, and when they are full. */
export class PoolWatch implements Disposable {
  readonly #client: Client;
  readonly #leaving = new AbortController();
  #next = Promise.withResolvers<void>();

  private constructor(client: Client) {
    this.#client = client;
  }

  /** Opens the stream of events; what happens from then on is not missed. */
  static async open(client: Client): Promise<PoolWatch> {
    const watch = new PoolWatch(client);
    const opened = Promise.withResolvers<void>();
    void watch
      .#follow(() => opened.resolve())
      .catch((error: unknown) => {
        opened.reject(error);
        watch.#next.reject(error);
      });
    await opened.promise;
    return watch;
  }

  async #follow(onOpen: () => void): Promise<void> {
    this.#next.promise.catch(() => undefined);
    const options = { type: "pool.", signal: this.#leaving.signal, onOpen };
    for await (const _ of this.#client.events(options)) {
      this.#next.resolve();
      this.#next = Promise.withResolvers();
      this.#next.promise.catch(() => undefined);
    }
  }

  /** Resolves once every pool has as many as it shall have. */
  async untilFull(deadline: Deadline): Promise<void> {
    for (;;) {
      const next = this.#next.promise;
      const { pools } = await this.#client.system.info();
      if (pools.every(isFull)) return;
      await deadline.race(next, "the refill of the pool");
    }
  }

  [Symbol.dispose](): void {
    this.#leaving.abort();
  }
}

function isFull({ blocked, standing, warm, parent, target }: SystemInfo["pools"][number]): boolean {
  return blocked >= target.blocked && standing >= target.standing && warm >= target.warm && (parent || !target.parent);
}
