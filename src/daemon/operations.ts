/** Operations: what may take longer than a second, with progress and cancellation. They live as long as the daemon. */
import type { Operation } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import type { ProgressOptions } from "../engine/interface.ts";
import { Deadline } from "../sys/deadline.ts";
import { newId } from "../sys/ids.ts";
import { log } from "./log.ts";
import { problemOf } from "./problem.ts";

/** Ended operations that are kept for asking. */
const KEPT_OPERATIONS = 200;
/** Longest that any of them may take. */
const OPERATION_LIMIT_MS = 3_600_000;
/** Lines of output kept for those who begin to watch later. */
const KEPT_LINES = 500;

interface Entry {
  operation: Operation;
  readonly abort: AbortController;
  readonly watchers: Set<Watcher>;
  /** What the work's programs have printed, of which the end is kept, and how many lines that were in all. */
  readonly output: string[];
  printed: number;
}

/** What whoever watches an operation is told: each new state, and each line of output. */
export interface Watcher {
  state(operation: Operation): void;
  /** @param number counts from 0, so that who watches again knows what it has seen. */
  output(line: string, number: number): void;
}

/** What the work of an operation comes to: ids of what it made, the first of all being the result. */
export interface Made {
  ids: readonly string[];
  /** What is to be said of it. */
  note?: string;
}

/** The operations of this daemon. */
export class Operations {
  readonly #entries = new Map<string, Entry>();

  /** Starts one. `work` resolves with the id of what it made, or with several. @returns its first state. */
  start(kind: Operation["kind"], work: (options: ProgressOptions) => Promise<string | Made>): Operation {
    const operation: Operation = {
      id: newId("op"),
      kind,
      state: "running",
      step: "started",
      createdAt: new Date().toISOString(),
      finishedAt: null,
      result: null,
      results: [],
      note: null,
      error: null,
    };
    const entry: Entry = { operation, abort: new AbortController(), watchers: new Set(), output: [], printed: 0 };
    this.#entries.set(operation.id, entry);
    this.#forget();
    void this.#run(entry, work);
    return operation;
  }

  list(): Operation[] {
    return [...this.#entries.values()].map((entry) => entry.operation);
  }

  /** @throws `operation_not_found`. */
  get(id: string): Operation {
    return this.#entry(id).operation;
  }

  /** Asks a running operation to stop; an ended one stays as it is. @throws `operation_not_found`. */
  cancel(id: string): void {
    this.#entry(id).abort.abort();
  }

  /** Tells `watcher` the output kept, then the state, and what comes. @returns the function that ends it. @throws `operation_not_found`. */
  watch(id: string, watcher: Watcher): () => void {
    const entry = this.#entry(id);
    const first = entry.printed - entry.output.length;
    for (const [index, line] of entry.output.entries()) watcher.output(line, first + index);
    watcher.state(entry.operation);
    entry.watchers.add(watcher);
    return () => entry.watchers.delete(watcher);
  }

  /** Cancels all that run, for the daemon's end. */
  cancelAll(): void {
    for (const entry of this.#entries.values()) entry.abort.abort();
  }

  #entry(id: string): Entry {
    const entry = this.#entries.get(id);
    if (entry === undefined)
      throw new MayflyError("operation_not_found", `There is no operation ${id} in this daemon's memory`);
    return entry;
  }

  async #run(entry: Entry, work: (options: ProgressOptions) => Promise<string | Made>): Promise<void> {
    const deadline = Deadline.after(OPERATION_LIMIT_MS, entry.abort.signal);
    const onProgress = (step: string) => {
      if (entry.operation.state === "running") this.#change(entry, { step });
    };
    const onOutput = (line: string) => {
      entry.output.push(line);
      if (entry.output.length > KEPT_LINES) entry.output.shift();
      for (const watcher of [...entry.watchers]) watcher.output(line, entry.printed);
      entry.printed++;
    };
    try {
      const made = await work({ onProgress, onOutput, deadline });
      const { ids, note = null } = typeof made === "string" ? { ids: [made] } : made;
      this.#end(entry, { state: "done", result: ids[0] ?? null, results: [...ids], note });
    } catch (error) {
      const problem = problemOf(error);
      this.#end(entry, { state: problem.code === "cancelled" ? "cancelled" : "failed", error: problem });
    }
  }

  #end(entry: Entry, change: Partial<Operation>): void {
    this.#change(entry, { ...change, finishedAt: new Date().toISOString() });
    const { id, kind, state, error } = entry.operation;
    log(state === "failed" ? "warn" : "info", "operation ended", { id, kind, state, error: error?.detail });
    entry.watchers.clear();
  }

  #change(entry: Entry, change: Partial<Operation>): void {
    entry.operation = { ...entry.operation, ...change };
    for (const watcher of [...entry.watchers]) watcher.state(entry.operation);
  }

  /** Drops the oldest ended ones beyond the number kept. */
  #forget(): void {
    let surplus = this.#entries.size - KEPT_OPERATIONS;
    for (const [id, entry] of this.#entries) {
      if (surplus <= 0) return;
      if (entry.operation.state === "running") continue;
      this.#entries.delete(id);
      surplus -= 1;
    }
  }
}
