/**
 * A QEMU's guest memory from outside: where it is mapped, which pages it has copied, their bytes, and writing pages into it. The file that is mapped
 * is a template's memory, privately: what has been copied is what the guest has written.
 */
import { dlopen, FFIType, ptr } from "bun:ffi";
import { closeSync, readFileSync, statSync } from "node:fs";
import { MayflyError } from "../contract/errors.ts";
import { AnonymousMemory } from "./anonymous-memory.ts";
import { errnoName, lastErrno } from "./libc.ts";
import { PAGE_BYTES } from "./memory-file.ts";
import { PageSet, RUN_WORDS, unionOfRuns, ZERO_SOURCE } from "./page-set.ts";
import { copiedPages, openProcess, type PagemapWay, refused } from "./pagemap.ts";

const { i32, i64, u64, pointer } = FFIType;
const c = dlopen("libc.so.6", {
  process_vm_readv: { args: [i32, pointer, u64, pointer, u64, u64], returns: i64 },
  process_vm_writev: { args: [i32, pointer, u64, pointer, u64, u64], returns: i64 },
  pread: { args: [i32, u64, u64, i64], returns: i64 },
  pwrite: { args: [i32, u64, u64, i64], returns: i64 },
}).symbols;

/** Pieces that one call copies (UIO_MAXIOV), and bytes: some milliseconds, after which others get their turn. */
const CALL_PIECES = 1024;
const CALL_BYTES = 4 << 20;
const ZERO_BYTES = 2 << 20;
const EFAULT = 14;

/** Runs of pages, ascending: first page and number of each. */
export type MemoryDifference = readonly (readonly [number, number])[];

/** Where guest memory lies in a process. */
export interface GuestMapping {
  /** Address of its first byte. */
  start: number;
  lengthBytes: number;
}

/**
 * Finds where a process has mapped a memory file, by device and inode; a file that is gone by its name.
 * @throws `qemu_exited`, `not_capturable`; `state_load_failed` unless there is exactly one mapping of it.
 */
export function guestMapping(pid: number, memoryPath: string): GuestMapping {
  const file = statSync(memoryPath, { throwIfNoEntry: false });
  const found: (GuestMapping & { offset: number })[] = [];
  for (const line of readMaps(pid).split("\n")) {
    // start-end permissions offset major:minor inode path
    const match = /^([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) \S+ (\d+) +(.*)$/.exec(line);
    if (match === null) continue;
    const [, from = "", to = "", offset = "", inode, name = ""] = match;
    const isIt =
      file === undefined
        ? name === `${memoryPath} (deleted)`
        : isMapped(pid, `${from}-${to}`, inode, name, file, memoryPath);
    if (!isIt) continue;
    const start = Number.parseInt(from, 16);
    const piece = { start, lengthBytes: Number.parseInt(to, 16) - start, offset: Number.parseInt(offset, 16) };
    const last = found.at(-1);
    // The kernel splits a mapping whose parts differ in something.
    const goesOn =
      last !== undefined && last.start + last.lengthBytes === start && last.offset + last.lengthBytes === piece.offset;
    if (goesOn) last.lengthBytes += piece.lengthBytes;
    else found.push(piece);
  }
  const [mapping] = found;
  if (mapping !== undefined && found.length === 1 && mapping.offset === 0) {
    return { start: mapping.start, lengthBytes: mapping.lengthBytes };
  }
  const what =
    found.length === 1 ? "only a part of it is mapped" : `it is mapped ${found.length} times, which should be once`;
  throw new MayflyError("state_load_failed", `Cannot find the guest memory ${memoryPath} in process ${pid}: ${what}`, {
    details: { path: memoryPath },
  });
}

function readMaps(pid: number): string {
  const path = `/proc/${pid}/maps`;
  let maps: string;
  try {
    maps = readFileSync(path, "latin1");
  } catch (error) {
    throw refused(path, error instanceof Error && "code" in error ? String(error.code) : String(error), error);
  }
  // One that has ended and nobody has waited for yet has none.
  if (maps === "") throw refused(path, "ESRCH");
  return maps;
}

/** Whether a mapping is of a file. What maps says of the device is not what stat says on some file systems; its link says the same. */
function isMapped(
  pid: number,
  range: string,
  inode: string | undefined,
  name: string,
  file: { dev: number; ino: number },
  memoryPath: string,
): boolean {
  if (inode !== String(file.ino)) return false;
  try {
    const mapped = statSync(`/proc/${pid}/map_files/${range}`);
    return mapped.dev === file.dev && mapped.ino === file.ino;
  } catch {
    // Without rights to follow it, the name has to do.
    return name === memoryPath;
  }
}

/**
 * A capture of the pages that a process has copied. Made ready while the guest runs: memory for about as many pages as there are then. Disposing it
 * frees what it has taken unless {@link take} has handed that on.
 */
export class MemoryCapture implements Disposable {
  #memory: AnonymousMemory | undefined;

  private constructor(
    readonly pid: number,
    readonly mapping: GuestMapping,
    memory: AnonymousMemory,
    private readonly differing: MemoryDifference,
    private readonly way: PagemapWay | undefined,
  ) {
    this.#memory = memory;
  }

  /**
   * @param differing pages in which the file that is mapped differs from the base: they are taken, too.
   * @param way how copied pages are found; unless given, the quickest.
   * @throws as {@link guestMapping} and {@link copiedPages} do.
   */
  static async prepare(
    pid: number,
    mapping: GuestMapping,
    differing: MemoryDifference = [],
    way?: PagemapWay,
  ): Promise<MemoryCapture> {
    const copied = copiedPages(pid, mapping.start, mapping.lengthBytes, way);
    const pages = countPages(unionOfRuns(copied, differing));
    const memory = new AnonymousMemory(mapping.lengthBytes);
    const capture = new MemoryCapture(pid, mapping, memory, differing, way);
    try {
      await memory.populate(Math.min(mapping.lengthBytes, pages * PAGE_BYTES + SPARE_BYTES));
      return capture;
    } catch (error) {
      capture[Symbol.dispose]();
      throw error;
    }
  }

  /** Finds and copies the pages. Nothing of the guest may run meanwhile. Once only; the set is the caller's to dispose. */
  async take(): Promise<PageSet> {
    const memory = this.#memory;
    if (memory === undefined) throw new MayflyError("internal", "A capture of guest memory was taken twice");
    const { start, lengthBytes } = this.mapping;
    const copied = copiedPages(this.pid, start, lengthBytes, this.way);
    const set = new PageSet(lengthBytes, unionOfRuns(copied, this.differing), memory, true);
    await copyPages("read", this.pid, this.mapping, set);
    this.#memory = undefined;
    return set;
  }

  [Symbol.dispose](): void {
    this.#memory?.[Symbol.dispose]();
    this.#memory = undefined;
  }
}

/** Prepared beyond what there is at that time. */
const SPARE_BYTES = 4 << 20;

/** Captures in one step. {@link MemoryCapture} is for guests that stand still meanwhile. */
export async function capturePages(pid: number, mapping: GuestMapping, way?: PagemapWay): Promise<PageSet> {
  using capture = await MemoryCapture.prepare(pid, mapping, [], way);
  return await capture.take();
}

/**
 * Writes pages into a process that has mapped the base of them and whose guest does not run yet.
 * @throws `qemu_exited`, `not_capturable`; `state_load_failed` if its memory has another size.
 */
export async function writePages(pid: number, mapping: GuestMapping, pages: PageSet): Promise<void> {
  if (pages.memoryBytes !== mapping.lengthBytes) {
    const why = `they are of a memory of ${pages.memoryBytes} bytes, it has ${mapping.lengthBytes}`;
    throw new MayflyError("state_load_failed", `Cannot write pages into process ${pid}: ${why}`);
  }
  await copyPages("write", pid, mapping, pages);
}

function countPages(runs: Uint32Array): number {
  let pages = 0;
  for (let at = 1; at < runs.length; at += RUN_WORDS) pages += runs[at] ?? 0;
  return pages;
}

/** Where in the runs a copy has got to. */
interface Cursor {
  word: number;
  donePages: number;
}

async function copyPages(way: "read" | "write", pid: number, mapping: GuestMapping, set: PageSet): Promise<void> {
  using zeroes = new AnonymousMemory(ZERO_BYTES);
  const batch = {
    ours: new Uint32Array(PIECE_WORDS * CALL_PIECES),
    theirs: new Uint32Array(PIECE_WORDS * CALL_PIECES),
  };
  const cursor: Cursor = { word: 0, donePages: 0 };
  for (let call = 0; cursor.word < set.runs.length; call++) {
    if (call > 0) await new Promise(setImmediate);
    const { pieces, bytes } = fillBatch(batch, cursor, mapping, set, zeroes);
    const copy = way === "read" ? c.process_vm_readv : c.process_vm_writev;
    const copied = Number(copy(pid, ptr(batch.ours), pieces, ptr(batch.theirs), pieces, 0));
    const errno = copied < 0 ? lastErrno() : 0;
    if (copied < 0 && errno !== EFAULT) throw refused(`/proc/${pid}/mem`, errnoName(errno));
    const copiedPages = Math.floor(Math.max(0, copied) / PAGE_BYTES);
    if (copiedPages === 0) advance(cursor, copyFirst(way, pid, batch), set.runs);
    else advance(cursor, Math.min(copiedPages, bytes / PAGE_BYTES), set.runs);
  }
}

/** Pieces of memory here and there, as struct iovec has them: address and length, 64 bits each, low word first. */
interface Batch {
  ours: Uint32Array;
  theirs: Uint32Array;
}

/** Words of one piece. Without a big integer for each: there are thousands, and a guest stands still meanwhile. */
const PIECE_WORDS = 4;

function setPiece(pieces: Uint32Array, index: number, address: number, lengthBytes: number): void {
  pieces[PIECE_WORDS * index] = address >>> 0;
  pieces[PIECE_WORDS * index + 1] = Math.floor(address / 2 ** 32);
  pieces[PIECE_WORDS * index + 2] = lengthBytes;
}

function addressOf(pieces: Uint32Array): number {
  return (pieces[0] ?? 0) + (pieces[1] ?? 0) * 2 ** 32;
}

/** Puts as much as one call copies from the cursor on into the batch. */
function fillBatch(
  { ours, theirs }: Batch,
  cursor: Cursor,
  { start }: GuestMapping,
  { runs, memory }: PageSet,
  zeroes: AnonymousMemory,
): { pieces: number; bytes: number } {
  let [pieces, bytes, donePages] = [0, 0, cursor.donePages];
  for (let word = cursor.word; word < runs.length && pieces < CALL_PIECES && bytes < CALL_BYTES; ) {
    const [first = 0, count = 0, source = 0] = [runs[word], runs[word + 1], runs[word + 2]];
    const isZero = source === ZERO_SOURCE;
    const most = Math.min(CALL_BYTES - bytes, isZero ? ZERO_BYTES : CALL_BYTES) / PAGE_BYTES;
    const pages = Math.min(count - donePages, most);
    const from = isZero ? zeroes.address : memory.address + (source + donePages) * PAGE_BYTES;
    setPiece(ours, pieces, from, pages * PAGE_BYTES);
    setPiece(theirs, pieces, start + (first + donePages) * PAGE_BYTES, pages * PAGE_BYTES);
    pieces += 1;
    bytes += pages * PAGE_BYTES;
    donePages += pages;
    if (donePages < count) continue;
    donePages = 0;
    word += RUN_WORDS;
  }
  return { pieces, bytes };
}

function advance(cursor: Cursor, pages: number, runs: Uint32Array): void {
  let left = pages + cursor.donePages;
  while (cursor.word < runs.length && left >= (runs[cursor.word + 1] ?? 0)) {
    left -= runs[cursor.word + 1] ?? 0;
    cursor.word += RUN_WORDS;
  }
  cursor.donePages = left;
}

/** Copies one page of the first piece by the process' memory file, which asks no permission of the mapping. @returns pages copied. */
function copyFirst(way: "read" | "write", pid: number, { ours, theirs }: Batch): number {
  const path = `/proc/${pid}/mem`;
  const fd = openProcess(path, way === "read" ? "r" : "r+");
  try {
    const copy = way === "read" ? c.pread : c.pwrite;
    const copied = Number(copy(fd, addressOf(ours), PAGE_BYTES, addressOf(theirs)));
    if (copied === PAGE_BYTES) return 1;
    throw refused(path, copied < 0 ? errnoName(lastErrno()) : `only ${copied} bytes of a page were copied`);
  } finally {
    closeSync(fd);
  }
}
