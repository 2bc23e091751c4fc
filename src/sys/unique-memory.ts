/** What a process has to itself, counted from /proc. */
import { closeSync, openSync, readFileSync, readSync } from "node:fs";

/** Memory that a process has to itself, from /proc. Bytes. */
export interface UniqueMemory {
  /** Anonymous bytes that no other process has, swapped and page-table bytes. */
  totalBytes: number;
  /** Of these, pages of the mapping of `memoryPath` that it has copied. */
  guestBytes: number;
  /** Of that mapping, what it shares: pages of the file, and copies that its QEMU's parent has made. */
  sharedBytes: number;
  /** Of `totalBytes`, pages that the kernel has merged with equal ones (KSM), which others may share. */
  mergedBytes: number;
}

/** What {@link countMappings} adds up. */
export interface CountedMappings {
  totalKiB: number;
  guestKiB: number;
  sharedKiB: number;
  mergedKiB: number;
}

const [LINE_FEED, SPACE, DIGIT_0, DIGIT_9] = [10, 32, 48, 57];
/** After each mapping's header line. */
const FIRST_FIELD = "\nSize:";
const [RESIDENT, PRIVATE_DIRTY] = ["\nRss:", "\nPrivate_Dirty:"] as const;
const [ANONYMOUS, SWAP, MERGED] = ["\nAnonymous:", "\nSwap:", "\nKSM:"] as const;
/** At least so much is free for each read. */
const ROOM_BYTES = 16 << 10;

/** Kept: a machine's statistics ask for one VM after another, and a list of mappings has a hundred kilobytes. */
let listing = Buffer.allocUnsafeSlow(4 * ROOM_BYTES);

/**
 * Counts what the process has to itself: anonymous pages (a private file page that was written is one) that it does not share with one that it
 * was copied from, swap, page tables.
 * @returns undefined when it has ended.
 */
export function uniqueMemoryOf(pid: number, memoryPath: string): UniqueMemory | undefined {
  try {
    const status = readFileSync(`/proc/${pid}/status`, "latin1");
    const mappings = readListing(`/proc/${pid}/smaps`);
    const counted = countMappings(mappings, memoryPath);
    const tablesKiB = Number(/^VmPTE:\s+(\d+)/m.exec(status)?.[1] ?? 0);
    return {
      totalBytes: (counted.totalKiB + tablesKiB) * 1024,
      guestBytes: counted.guestKiB * 1024,
      sharedBytes: counted.sharedKiB * 1024,
      mergedBytes: counted.mergedKiB * 1024,
    };
  } catch {
    return undefined;
  }
}

/** Adds up a list of mappings (proc_pid_smaps(5)): all, and those of one file. */
export function countMappings(mappings: Buffer, memoryPath: string): CountedMappings {
  const counted = { totalKiB: 0, guestKiB: 0, sharedKiB: 0, mergedKiB: 0 };
  const guest = Buffer.from(` ${memoryPath}`);
  for (let at = mappings.indexOf(FIRST_FIELD); at >= 0; ) {
    const next = mappings.indexOf(FIRST_FIELD, at + 1);
    const fields = mappings.subarray(at, next < 0 ? mappings.length : next);
    const mergedKiB = fieldOf(fields, MERGED);
    // Of anonymous pages those that no other process has, as the parent and other copies of it may: what only one has is dirty.
    const ownKiB = Math.min(fieldOf(fields, ANONYMOUS), fieldOf(fields, PRIVATE_DIRTY) + mergedKiB);
    const uniqueKiB = ownKiB + fieldOf(fields, SWAP);
    counted.totalKiB += uniqueKiB;
    counted.mergedKiB += mergedKiB;
    if (mappings.subarray(at - guest.length, at).equals(guest)) {
      counted.guestKiB += uniqueKiB;
      counted.sharedKiB += Math.max(0, fieldOf(fields, RESIDENT) - ownKiB);
    }
    at = next;
  }
  return counted;
}

function fieldOf(fields: Buffer, name: string): number {
  const at = fields.indexOf(name);
  return at < 0 ? 0 : numberAt(fields, at + name.length);
}

/** The decimal number that follows spaces. */
function numberAt(bytes: Buffer, start: number): number {
  let at = start;
  while (bytes[at] === SPACE) at += 1;
  let value = 0;
  for (;;) {
    const byte = bytes[at] ?? LINE_FEED;
    if (byte < DIGIT_0 || byte > DIGIT_9) return value;
    value = 10 * value + byte - DIGIT_0;
    at += 1;
  }
}

/** A file of /proc, valid until the next call. */
function readListing(path: string): Buffer {
  const fd = openSync(path, "r");
  try {
    let length = 0;
    for (;;) {
      if (listing.length - length < ROOM_BYTES) listing = Buffer.concat([listing, Buffer.alloc(listing.length)]);
      const count = readSync(fd, listing, length, listing.length - length, null);
      if (count === 0) return listing.subarray(0, length);
      length += count;
    }
  } finally {
    closeSync(fd);
  }
}
