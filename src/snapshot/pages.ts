/** A snapshot's file of pages: written as a stream, read and checked on the way into a process. */
import { createHash } from "node:crypto";
import { AnonymousMemory } from "../sys/anonymous-memory.ts";
import { BinaryFile } from "../sys/binary-file.ts";
import { checksum64 } from "../sys/hash.ts";
import { PAGE_BYTES } from "../sys/memory-file.ts";
import { PageSet, RUN_WORDS, RunList, ZERO_SOURCE } from "../sys/page-set.ts";
import { type GuestMapping, writePages } from "../sys/process-memory.ts";
import {
  BLOCK_BYTES,
  blocksOf,
  corrupt,
  dataOffsetOf,
  decodeHeader,
  decodeTable,
  encodeTable,
  HEADER_BYTES,
  type PagesTable,
} from "./format.ts";

const BLOCK_PAGES = BLOCK_BYTES / PAGE_BYTES;
/** Page bytes that are read, checked and written into a process at once. */
const SLICE_BLOCKS = 8;

/** What is known of a written file of pages. */
export interface PagesSummary {
  sizeBytes: number;
  /** Pages in it, and of them those that are zero. */
  count: number;
  zeroCount: number;
  /** SHA-256 of the file, hexadecimal. */
  sha256: string;
}

/** Writes a new file, syncs it. @throws `disk_full`; what else the file system says. */
export async function writePagesFile(path: string, pages: PageSet): Promise<PagesSummary> {
  const dataPages = pages.pages - pages.zeroPages;
  const sums = new BigUint64Array(blocksOf(dataPages));
  let block = 0;
  for await (const bytes of blocksFrom(pages)) sums[block++] = checksum64(bytes);
  const table = encodeTable(pages.memoryBytes, pages.runs, sums);
  const hash = createHash("sha256");
  await using file = await BinaryFile.create(path);
  let at = 0;
  const append = async (bytes: Uint8Array) => {
    hash.update(bytes);
    await file.write(bytes, at);
    at += bytes.length;
  };
  await append(table);
  for await (const bytes of blocksFrom(pages)) await append(bytes);
  await file.sync();
  return { sizeBytes: at, count: pages.pages, zeroCount: pages.zeroPages, sha256: hash.digest("hex") };
}

/** The bytes of the pages that are not zero, in blocks: views where they lie together, copies otherwise; each holds until the next one is asked for. */
async function* blocksFrom({ runs, memory }: PageSet): AsyncGenerator<Uint8Array> {
  const block = new Uint8Array(BLOCK_BYTES);
  let filled = 0;
  for (let word = 0; word < runs.length; word += RUN_WORDS) {
    const [count = 0, source = 0] = [runs[word + 1], runs[word + 2]];
    if (source === ZERO_SOURCE) continue;
    for (let done = 0; done < count; ) {
      const pages = Math.min(count - done, BLOCK_PAGES - filled);
      const bytes = memory.view((source + done) * PAGE_BYTES, pages * PAGE_BYTES);
      done += pages;
      if (pages === BLOCK_PAGES) {
        yield bytes;
        continue;
      }
      block.set(bytes, filled * PAGE_BYTES);
      filled += pages;
      if (filled < BLOCK_PAGES) continue;
      yield block;
      filled = 0;
    }
  }
  if (filled > 0) yield block.subarray(0, filled * PAGE_BYTES);
}

/** A file of pages whose table has been read and checked. Disposing it closes it. */
export class PagesFile implements AsyncDisposable {
  private constructor(
    private readonly file: BinaryFile,
    readonly table: PagesTable,
    readonly sizeBytes: number,
  ) {}

  /** @throws `snapshot_corrupt`; what the file system says. */
  static async open(path: string): Promise<PagesFile> {
    const file = await BinaryFile.open(path);
    try {
      const sizeBytes = await file.sizeBytes();
      const start = new Uint8Array(HEADER_BYTES);
      const header = decodeHeader(start.subarray(0, await file.read(start, 0)), sizeBytes, path);
      const whole = new Uint8Array(dataOffsetOf(header.runs, header.dataPages));
      const table = decodeTable(whole.subarray(0, await file.read(whole, 0)), header, path);
      return new PagesFile(file, table, sizeBytes);
    } catch (error) {
      await file[Symbol.asyncDispose]();
      throw error;
    }
  }

  get path(): string {
    return this.file.path;
  }

  get memoryBytes(): number {
    return this.table.memoryBytes;
  }

  /**
   * The pages in sets of some megabytes, each checked against its checksums; together all of them, in order. Each holds until the next one is asked for.
   * @throws `snapshot_corrupt`.
   */
  async *sets(): AsyncGenerator<PageSet> {
    const slicePages = SLICE_BLOCKS * BLOCK_PAGES;
    using memory = new AnonymousMemory(SLICE_BLOCKS * BLOCK_BYTES);
    for (const { runs, from, pages } of slices(this.table.runs, slicePages)) {
      await this.#read(memory, from, pages);
      yield new PageSet(this.memoryBytes, runs, memory, false);
    }
  }

  /** All pages with their bytes in memory, checked: for what is written into many processes. @throws `snapshot_corrupt`. */
  async load(): Promise<PageSet> {
    const memory = new AnonymousMemory(this.table.dataPages * PAGE_BYTES);
    try {
      await this.#read(memory, 0, this.table.dataPages);
      return new PageSet(this.memoryBytes, this.table.runs, memory, true);
    } catch (error) {
      memory[Symbol.dispose]();
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.file[Symbol.asyncDispose]();
  }

  /** Reads pages of bytes, from the start of a block on, to the start of `memory`. */
  async #read(memory: AnonymousMemory, fromPage: number, pages: number): Promise<void> {
    const { dataOffset, sums } = this.table;
    for (let done = 0; done < pages; done += BLOCK_PAGES * SLICE_BLOCKS) {
      const bytes = memory.view(done * PAGE_BYTES, Math.min(pages - done, BLOCK_PAGES * SLICE_BLOCKS) * PAGE_BYTES);
      const read = await this.file.read(bytes, dataOffset + (fromPage + done) * PAGE_BYTES);
      if (read < bytes.length) throw corrupt(this.path, "it has become shorter");
      for (let at = 0; at < bytes.length; at += BLOCK_BYTES) {
        const block = ((fromPage + done) * PAGE_BYTES + at) / BLOCK_BYTES;
        if (checksum64(bytes.subarray(at, at + BLOCK_BYTES)) === sums[block]) continue;
        throw corrupt(this.path, `the checksum of block ${block} of its pages does not fit`);
      }
    }
  }
}

/** Opens a file of pages. @throws `snapshot_corrupt`; what the file system says. */
export function openPagesFile(path: string): Promise<PagesFile> {
  return PagesFile.open(path);
}

/**
 * Writes the pages of a file into a process that has mapped their base and whose guest does not run yet. What is written has been checked.
 * @throws `snapshot_corrupt` (the process is to be ended then), `qemu_exited`, `state_load_failed`.
 */
export async function applyPages(pid: number, mapping: GuestMapping, file: PagesFile): Promise<void> {
  if (file.memoryBytes !== mapping.lengthBytes) {
    throw corrupt(file.path, `they are of a memory of ${file.memoryBytes} bytes, the base has ${mapping.lengthBytes}`);
  }
  for await (const set of file.sets()) await writePages(pid, mapping, set);
}

/** Cuts runs so that each part has at most so many pages with bytes; sources count from the start of the part. */
function* slices(runs: Uint32Array, pagesEach: number): Generator<{ runs: Uint32Array; from: number; pages: number }> {
  let [list, from, pages] = [new RunList(), 0, 0];
  for (let word = 0; word < runs.length; word += RUN_WORDS) {
    const [start = 0, count = 0, source = 0] = [runs[word], runs[word + 1], runs[word + 2]];
    if (source === ZERO_SOURCE) {
      list.add(start, count, ZERO_SOURCE);
      continue;
    }
    for (let done = 0; done < count; ) {
      const fitting = Math.min(count - done, pagesEach - pages);
      list.add(start + done, fitting, pages);
      pages += fitting;
      done += fitting;
      if (pages < pagesEach) continue;
      yield { runs: list.finish(), from, pages };
      [list, from, pages] = [new RunList(), from + pages, 0];
    }
  }
  const rest = list.finish();
  if (rest.length > 0) yield { runs: rest, from, pages };
}
