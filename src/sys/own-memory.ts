/** Memory of this process that nothing needs any more. */
import { dlopen, FFIType } from "bun:ffi";
import { readFileSync } from "node:fs";

const c = dlopen("libc.so.6", {
  madvise: { args: [FFIType.u64, FFIType.u64, FFIType.i32], returns: FFIType.i32 },
}).symbols;
const MADV_DONTNEED = 4;
const PAGE_BYTES = 4096;
/** The smallest growth for which garbage is collected. */
const WORTH_BYTES = 2_000_000;
/** What the process may have without giving pages of program files back, and what it then keeps of them anyway: requests use that much. */
const ENOUGH: MemoryBounds = { totalBytes: 57_000_000, fileBytes: 30_000_000 };
/** What was there after the last collection. */
let collectedBytes = 0;

/** Resident memory that nothing is given back of. */
export interface MemoryBounds {
  /** All of it. */
  totalBytes: number;
  /** Pages of program files. */
  fileBytes: number;
}

/** Addresses from `start` up to `end`. */
export interface AddressRange {
  start: bigint;
  end: bigint;
}

/**
 * Gives memory back: what the collector can free, code that was compiled for starting, and the pages of program files, of which the
 * start has touched far more than what comes after it uses. They stay in the page cache, from which they come again one by one when
 * they are used. Takes some milliseconds: not for the path of a request.
 */
export async function giveBackStartMemory(): Promise<void> {
  Bun.shrink();
  // It does so when this turn of the event loop has ended.
  await new Promise((resolve) => setImmediate(resolve));
  collectedBytes = residentBytes().anonymous;
  giveBackFilePages();
}

function giveBackFilePages(): void {
  for (const { start, end } of unchangedFilePages(readFileSync("/proc/self/smaps", "latin1"))) {
    c.madvise(start, end - start, MADV_DONTNEED);
  }
}

/**
 * Collects all garbage, which takes some milliseconds, and gives it back, if the process has grown since the last time by as much as is
 * worth it, or is larger than it should be: much may have ended since the last time. If it still is then, it gives back pages of program files, too.
 * What has been compiled stays.
 */
export function collectGarbage(enough = ENOUGH): void {
  let { anonymous, file } = residentBytes();
  const isLarge = () => anonymous + file > enough.totalBytes;
  if (isLarge() || anonymous - collectedBytes >= WORTH_BYTES) {
    Bun.gc(true);
    ({ anonymous, file } = residentBytes());
    collectedBytes = anonymous;
  }
  if (isLarge() && file > enough.fileBytes) giveBackFilePages();
}

/** What of this process is in memory (proc_pid_statm(5)). */
function residentBytes(): { anonymous: number; file: number } {
  const [, resident = 0, shared = 0] = readFileSync("/proc/self/statm", "latin1").split(" ").map(Number);
  return { anonymous: (resident - shared) * PAGE_BYTES, file: shared * PAGE_BYTES };
}

/**
 * The mappings of files that can only be read or run and of which no page differs from the file's, in a list of mappings
 * (proc_pid_smaps(5)): what has been relocated is a copy, and would be lost.
 */
export function unchangedFilePages(mappings: string): AddressRange[] {
  const found: AddressRange[] = [];
  let candidate: AddressRange | undefined;
  for (const line of mappings.split("\n")) {
    const header = /^([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ (\d+)/.exec(line);
    if (header !== null) {
      const [, start = "", end = "", rights = "", inode] = header;
      const isFile = inode !== "0" && /^r-[x-]p$/.test(rights);
      candidate = isFile ? { start: BigInt(`0x${start}`), end: BigInt(`0x${end}`) } : undefined;
    } else if (candidate !== undefined && /^Anonymous:\s+0 kB$/.test(line)) found.push(candidate);
  }
  return found;
}
