/**
 * The format of a snapshot's pages (docs/adr/0032-snapshot-format.md), little-endian:
 * header of 64 bytes, runs of 12 bytes (first page, number of pages, kind), checksums of 8 bytes of each block of page bytes, zeroes up to a
 * multiple of a page, then the bytes of all pages that are not zero, in the order of the runs.
 */
import { MayflyError } from "../contract/errors.ts";
import { checksum64 } from "../sys/hash.ts";
import { PAGE_BYTES } from "../sys/memory-file.ts";
import { RUN_WORDS, ZERO_SOURCE } from "../sys/page-set.ts";

const MAGIC = "MAYFLYPG";
const FORMAT = 1;
/** Size of the header in bytes. */
export const HEADER_BYTES = 64;
const CHECKSUM_OFFSET = 56;
const KIND_DATA = 0;
const KIND_ZERO = 1;
/** Page bytes that have a checksum together. */
export const BLOCK_BYTES = 1 << 20;
/** Largest guest memory that is believed: 1 TiB. */
const MAX_MEMORY_BYTES = 2 ** 40;
const RUN_BYTES = 12;
const SUM_BYTES = 8;

/** What the header tells, checked against itself and the file's size. */
export interface PagesHeader {
  memoryBytes: number;
  runs: number;
  dataPages: number;
  /** XXH3 of header (with zeroes in this place), runs and checksums. */
  checksum: bigint;
  /** Where the bytes of the pages begin. */
  dataOffset: number;
}

/** The part of the file before the bytes of the pages. */
export interface PagesTable {
  memoryBytes: number;
  /** As a page set has them: their source counts pages of bytes in the file. */
  runs: Uint32Array;
  dataPages: number;
  /** Checksums of the blocks. */
  sums: BigUint64Array;
  dataOffset: number;
}

/** Where the bytes of the pages begin. */
export function dataOffsetOf(runs: number, dataPages: number): number {
  const bytes = HEADER_BYTES + runs * RUN_BYTES + blocksOf(dataPages) * SUM_BYTES;
  return Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES;
}

/** Number of blocks that pages make. */
export function blocksOf(dataPages: number): number {
  return Math.ceil((dataPages * PAGE_BYTES) / BLOCK_BYTES);
}

/** Everything before the bytes of the pages. */
export function encodeTable(memoryBytes: number, runs: Uint32Array, sums: BigUint64Array): Uint8Array {
  const count = runs.length / RUN_WORDS;
  let dataPages = 0;
  for (let at = 0; at < runs.length; at += RUN_WORDS) if (runs[at + 2] !== ZERO_SOURCE) dataPages += runs[at + 1] ?? 0;
  const bytes = new Uint8Array(dataOffsetOf(count, dataPages));
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode(MAGIC));
  view.setUint32(8, FORMAT, true);
  view.setUint32(12, PAGE_BYTES, true);
  view.setBigUint64(16, BigInt(memoryBytes), true);
  view.setBigUint64(24, BigInt(count), true);
  view.setBigUint64(32, BigInt(dataPages), true);
  view.setUint32(40, BLOCK_BYTES, true);
  let at = HEADER_BYTES;
  for (let word = 0; word < runs.length; word += RUN_WORDS, at += RUN_BYTES) {
    view.setUint32(at, runs[word] ?? 0, true);
    view.setUint32(at + 4, runs[word + 1] ?? 0, true);
    view.setUint32(at + 8, runs[word + 2] === ZERO_SOURCE ? KIND_ZERO : KIND_DATA, true);
  }
  for (const sum of sums) {
    view.setBigUint64(at, sum, true);
    at += SUM_BYTES;
  }
  view.setBigUint64(CHECKSUM_OFFSET, checksum64(bytes), true);
  return bytes;
}

/** Reads the header of a file of a size. @throws `snapshot_corrupt`. */
export function decodeHeader(bytes: Uint8Array, fileBytes: number, origin: string): PagesHeader {
  if (bytes.length < HEADER_BYTES) throw corrupt(origin, `it has ${bytes.length} bytes, a header has ${HEADER_BYTES}`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, HEADER_BYTES);
  if (new TextDecoder("latin1").decode(bytes.subarray(0, 8)) !== MAGIC)
    throw corrupt(origin, "it does not begin as pages do");
  const fixed = [view.getUint32(8, true), view.getUint32(12, true), view.getUint32(40, true)];
  if (fixed.join() !== [FORMAT, PAGE_BYTES, BLOCK_BYTES].join()) {
    throw corrupt(
      origin,
      `format, page and block size are ${fixed.join(", ")}, expected ${FORMAT}, ${PAGE_BYTES}, ${BLOCK_BYTES}`,
    );
  }
  const [memoryBytes = 0, runs = 0, dataPages = 0] = [16, 24, 32].map((at) => Number(view.getBigUint64(at, true)));
  const memoryPages = memoryBytes / PAGE_BYTES;
  if (memoryBytes === 0 || memoryBytes > MAX_MEMORY_BYTES || !Number.isInteger(memoryPages)) {
    throw corrupt(origin, `the memory has ${memoryBytes} bytes`);
  }
  if (runs > memoryPages || dataPages > memoryPages) {
    throw corrupt(origin, `${runs} runs and ${dataPages} pages in a memory of ${memoryPages} pages`);
  }
  const dataOffset = dataOffsetOf(runs, dataPages);
  const wanted = dataOffset + dataPages * PAGE_BYTES;
  if (fileBytes !== wanted) throw corrupt(origin, `it has ${fileBytes} bytes, its header requires ${wanted}`);
  return { memoryBytes, runs, dataPages, checksum: view.getBigUint64(CHECKSUM_OFFSET, true), dataOffset };
}

/** Reads everything before the bytes of the pages. @param bytes all of it. @throws `snapshot_corrupt`. */
export function decodeTable(bytes: Uint8Array, header: PagesHeader, origin: string): PagesTable {
  const { memoryBytes, dataPages, dataOffset } = header;
  const unsigned = bytes.slice(0, dataOffset);
  unsigned.fill(0, CHECKSUM_OFFSET, CHECKSUM_OFFSET + SUM_BYTES);
  const actual = checksum64(unsigned);
  if (bytes.length < dataOffset || actual !== header.checksum) {
    throw corrupt(
      origin,
      `its table has checksum ${actual.toString(16)}, its header requires ${header.checksum.toString(16)}`,
    );
  }
  const view = new DataView(unsigned.buffer);
  const runs = new Uint32Array(header.runs * RUN_WORDS);
  let [end, source, at] = [0, 0, HEADER_BYTES];
  for (let word = 0; word < runs.length; word += RUN_WORDS, at += RUN_BYTES) {
    const [start, pages, kind] = [view.getUint32(at, true), view.getUint32(at + 4, true), view.getUint32(at + 8, true)];
    if (start < end || pages === 0 || start + pages > memoryBytes / PAGE_BYTES || kind > KIND_ZERO) {
      throw corrupt(
        origin,
        `run ${word / RUN_WORDS} has ${pages} pages of kind ${kind} from ${start} on, after ${end}`,
      );
    }
    runs[word] = start;
    runs[word + 1] = pages;
    runs[word + 2] = kind === KIND_ZERO ? ZERO_SOURCE : source;
    if (kind === KIND_DATA) source += pages;
    end = start + pages;
  }
  if (source !== dataPages) throw corrupt(origin, `its runs have ${source} pages with bytes, its header ${dataPages}`);
  const sums = new BigUint64Array(blocksOf(dataPages));
  for (let block = 0; block < sums.length; block++, at += SUM_BYTES) sums[block] = view.getBigUint64(at, true);
  return { memoryBytes, runs, dataPages, sums, dataOffset };
}

/** The error for pages that cannot be used. */
export function corrupt(origin: string, why: string): MayflyError {
  return new MayflyError("snapshot_corrupt", `Cannot use the pages in ${origin}: ${why}`, {
    details: { path: origin, problems: [why] },
  });
}
