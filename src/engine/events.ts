/** What happened, to whoever listens. */
import type { Event } from "../contract/api.ts";

/** Fan-out of events; a listener that throws is dropped. */
export class Events {
  readonly #listeners = new Set<(event: Event) => void>();

  subscribe(listener: (event: Event) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  emit(type: string, id: string, name?: string, attributes: Record<string, unknown> = {}): void {
    const event: Event = {
      type,
      time: new Date().toISOString(),
      id,
      attributes,
      ...(name === undefined ? {} : { name }),
    };
    for (const listener of this.#listeners) {
      try {
        listener(event);
      } catch {
        this.#listeners.delete(listener);
      }
    }
  }
}
