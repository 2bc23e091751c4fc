/** Pages of a guest's memory with their bytes, as they are captured, reduced, stored and written. */
import type { AnonymousMemory } from "./anonymous-memory.ts";
import { PAGE_BYTES } from "./memory-file.ts";

/** Members of a run in {@link PageSet.runs}: first page, number of pages, source. */
export const RUN_WORDS = 3;
/** A run's source if its pages are zero. */
export const ZERO_SOURCE = 0xffff_ffff;

/** One run of pages. */
export interface PageRun {
  /** Index of its first page in the guest's memory. */
  startPage: number;
  pages: number;
  /** Index of its first page in the set's bytes; undefined: all of them are zero. */
  sourcePage: number | undefined;
}

/**
 * Runs of pages in ascending order, which do not overlap, and the bytes of those that are not zero.
 * The bytes may belong to another set, of which this one is a part: dispose that one last.
 */
export class PageSet implements Disposable {
  /** Number of pages, zero ones included. */
  readonly pages: number;
  readonly zeroPages: number;

  /**
   * @param memoryBytes size of the guest's memory.
   * @param runs three words a run: first page, number of pages, first page in `memory` or {@link ZERO_SOURCE}.
   * @param owns whether disposing it disposes the memory.
   */
  constructor(
    readonly memoryBytes: number,
    readonly runs: Uint32Array,
    readonly memory: AnonymousMemory,
    private readonly owns: boolean,
  ) {
    let [pages, zeroPages] = [0, 0];
    for (let at = 0; at < runs.length; at += RUN_WORDS) {
      const count = runs[at + 1] ?? 0;
      pages += count;
      if (runs[at + 2] === ZERO_SOURCE) zeroPages += count;
    }
    this.pages = pages;
    this.zeroPages = zeroPages;
  }

  /** Bytes of all pages, which each VM that gets them has for itself. */
  get deltaBytes(): number {
    return this.pages * PAGE_BYTES;
  }

  /** The runs one by one; for many runs read the words. */
  *[Symbol.iterator](): Generator<PageRun> {
    for (let at = 0; at < this.runs.length; at += RUN_WORDS) {
      const [startPage = 0, pages = 0, source = 0] = this.runs.subarray(at, at + RUN_WORDS);
      yield { startPage, pages, sourcePage: source === ZERO_SOURCE ? undefined : source };
    }
  }

  [Symbol.dispose](): void {
    if (this.owns) this.memory[Symbol.dispose]();
  }
}

/** The pages of two lists of runs, as words; sources count up from 0. @param more first page and number of each run, ascending. */
export function unionOfRuns(words: Uint32Array, more: readonly (readonly [number, number])[]): Uint32Array {
  if (more.length === 0) return words;
  const all: (readonly [number, number])[] = [...more];
  for (let at = 0; at < words.length; at += RUN_WORDS) all.push([words[at] ?? 0, words[at + 1] ?? 0]);
  all.sort(([a], [b]) => a - b);
  const union = new RunList();
  let [end, source] = [0, 0];
  for (const [start, pages] of all) {
    const from = Math.max(start, end);
    const count = start + pages - from;
    if (count <= 0) continue;
    union.add(from, count, source);
    source += count;
    end = from + count;
  }
  return union.finish();
}

/** Words of runs as they are found: a run that goes on where the last one ends makes that one longer. */
export class RunList {
  #words = new Uint32Array(RUN_WORDS * 256);
  #length = 0;

  /** @param source first page in the bytes, or {@link ZERO_SOURCE}. */
  add(startPage: number, pages: number, source: number): void {
    const last = this.#length - RUN_WORDS;
    if (last >= 0) {
      const [start = 0, count = 0, from = 0] = [this.#words[last], this.#words[last + 1], this.#words[last + 2]];
      const follows = from === ZERO_SOURCE ? source === ZERO_SOURCE : source === from + count;
      if (follows && startPage === start + count) {
        this.#words[last + 1] = count + pages;
        return;
      }
    }
    if (this.#length === this.#words.length) {
      const larger = new Uint32Array(this.#words.length * 2);
      larger.set(this.#words);
      this.#words = larger;
    }
    this.#words[this.#length] = startPage;
    this.#words[this.#length + 1] = pages;
    this.#words[this.#length + 2] = source;
    this.#length += RUN_WORDS;
  }

  /** The runs so far. */
  finish(): Uint32Array {
    return this.#words.slice(0, this.#length);
  }
}
