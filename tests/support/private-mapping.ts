/** Drives private-mapping-process.ts, and looks into it by ways of its own. */
import { closeSync, openSync, readSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { type GuestMapping, guestMapping } from "../../src/sys/process-memory.ts";
import type { MappingOrder } from "./private-mapping-process.ts";

export const PAGE = 4096;

/** A process that has mapped a memory file privately. */
export class PrivateMapping implements Disposable {
  readonly #child = Bun.spawn([process.execPath, join(import.meta.dir, "private-mapping-process.ts")], {
    stdin: "pipe",
    stdout: "pipe",
  });
  readonly #lines = linesOf(this.#child.stdout);
  path = "";
  #lengthBytes = 0;

  static async of(path: string, lengthBytes: number): Promise<PrivateMapping> {
    const mapping = new PrivateMapping();
    await mapping.remap(path, lengthBytes);
    return mapping;
  }

  get pid(): number {
    return this.#child.pid;
  }

  get mapping(): GuestMapping {
    return guestMapping(this.pid, this.path);
  }

  /** Drops what it had and maps the file anew. */
  async remap(path = this.path, lengthBytes = this.#lengthBytes): Promise<void> {
    await this.tell({ do: "map", path, lengthBytes });
    this.path = path;
    this.#lengthBytes = lengthBytes;
  }

  async tell(order: MappingOrder): Promise<number> {
    this.#child.stdin.write(`${JSON.stringify(order)}\n`);
    await this.#child.stdin.flush();
    const { value } = await this.#lines.next();
    if (value === undefined) throw new Error("the process has ended");
    return JSON.parse(value).result;
  }

  /** The whole memory, as its memory file in /proc has it. */
  contents(): Buffer {
    const { start, lengthBytes } = this.mapping;
    const bytes = Buffer.alloc(lengthBytes);
    const fd = openSync(`/proc/${this.pid}/mem`, "r");
    try {
      for (let done = 0; done < lengthBytes; ) done += readSync(fd, bytes, done, lengthBytes - done, start + done);
    } finally {
      closeSync(fd);
    }
    return bytes;
  }

  kill(): Promise<number> {
    this.#child.kill("SIGKILL");
    return this.#child.exited;
  }

  [Symbol.dispose](): void {
    this.#child.kill("SIGKILL");
  }
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string, undefined> {
  let rest = "";
  const decoder = new TextDecoder();
  for await (const chunk of stream) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
}

/** Makes a memory file: pages named have that byte throughout, all others are holes. */
export async function memoryFile(path: string, pages: number, filled: ReadonlyMap<number, number>): Promise<void> {
  await using file = await open(path, "w");
  await file.truncate(pages * PAGE);
  for (const [page, byte] of filled) await file.write(Buffer.alloc(PAGE, byte), 0, PAGE, page * PAGE);
}
