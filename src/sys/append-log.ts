/**
 * A log that keeps the end of a byte stream, at most a given number of bytes, and knows its offset in the stream after any
 * crash: the current file is `NAME`, the one before it `NAME.OFFSET`, where OFFSET is the stream offset at which it ends.
 */
import { closeSync, fstatSync, openSync, readdirSync, renameSync, rmSync, writeSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";

/** Bytes read at once. */
const READ_BYTES = 65_536;

/** Writing end. One per file at a time. */
export class AppendLog implements Disposable {
  #fd: number;
  #base: number;
  #size: number;
  #listeners = new Set<() => void>();

  /** @param limitBytes bytes kept in all; the older half goes when they are full. */
  constructor(
    private readonly directory: string,
    private readonly name: string,
    private readonly limitBytes: number,
  ) {
    this.#base = previousEnds(directory, name).at(-1) ?? 0;
    this.#fd = openSync(join(directory, name), "a", 0o640);
    this.#size = fstatSync(this.#fd).size;
  }

  /** Bytes of the stream that have been written, those dropped since included. */
  get offset(): number {
    return this.#base + this.#size;
  }

  /** Adds to the log. @throws what the file system says, e.g. ENOSPC; nothing or a part is written then. */
  append(chunk: Uint8Array): void {
    if (this.#size >= this.limitBytes / 2) this.#rotate();
    let done = 0;
    while (done < chunk.length) {
      const written = writeSync(this.#fd, chunk, done);
      done += written;
      this.#size += written;
    }
    for (const listener of this.#listeners) listener();
  }

  /** Goes on at a later offset of the stream: the bytes between are not known. */
  skipTo(offset: number): void {
    if (offset <= this.offset) return;
    this.#startNext(offset);
    for (const listener of this.#listeners) listener();
  }

  /** Calls `listener` after each append. @returns a function that ends it. */
  watch(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #rotate(): void {
    const old = previousEnds(this.directory, this.name);
    this.#startNext(this.offset);
    for (const previous of old) rmSync(join(this.directory, `${this.name}.${previous}`), { force: true });
  }

  /** Sets the current file aside as the one that ends at `offset`, and begins another. */
  #startNext(offset: number): void {
    const path = join(this.directory, this.name);
    renameSync(path, `${path}.${offset}`);
    const next = openSync(path, "a", 0o640);
    closeSync(this.#fd);
    this.#fd = next;
    this.#base = offset;
    this.#size = 0;
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
    for (const listener of this.#listeners) listener();
  }
}

/** Stream offsets at which the earlier files end, ascending. */
function previousEnds(directory: string, name: string): number[] {
  return readdirSync(directory)
    .filter((entry) => entry.startsWith(`${name}.`) && /^\d+$/.test(entry.slice(name.length + 1)))
    .map((entry) => Number(entry.slice(name.length + 1)))
    .sort((a, b) => a - b);
}

/** What is kept of a log, oldest first, each chunk with its offset in the stream. A missing log is empty. */
export async function* readLog(
  directory: string,
  name: string,
  fromOffset: number,
): AsyncGenerator<{ offset: number; chunk: Uint8Array }> {
  let ends: number[];
  try {
    ends = previousEnds(directory, name);
  } catch {
    return;
  }
  const path = join(directory, name);
  const base = ends.at(-1) ?? 0;
  for (const end of ends) yield* readFileFrom(`${path}.${end}`, end, true, fromOffset);
  yield* readFileFrom(path, base, false, fromOffset);
}

/** `boundary` is the offset at which the file starts or, with `atEnd`, ends. */
async function* readFileFrom(
  path: string,
  boundary: number,
  atEnd: boolean,
  fromOffset: number,
): AsyncGenerator<{ offset: number; chunk: Uint8Array }> {
  const file = await open(path, "r").catch(() => undefined);
  if (file === undefined) return;
  try {
    const { size } = await file.stat();
    const start = atEnd ? boundary - size : boundary;
    for (let at = Math.max(0, fromOffset - start); at < size; ) {
      const buffer = new Uint8Array(Math.min(READ_BYTES, size - at));
      const { bytesRead } = await file.read(buffer, 0, buffer.length, at);
      if (bytesRead === 0) return;
      yield { offset: start + at, chunk: buffer.subarray(0, bytesRead) };
      at += bytesRead;
    }
  } finally {
    await file.close();
  }
}
