/**
 * Which pages of a private file mapping a process has copied (Linux Documentation/admin-guide/mm/pagemap.rst): those that are present or swapped and
 * do not belong to the file. Holes, pages never touched and pages only read do not count.
 */
import { dlopen, FFIType, ptr } from "bun:ffi";
import { closeSync, openSync } from "node:fs";
import { MayflyError } from "../contract/errors.ts";
import { readAt } from "./libc.ts";
import { PAGE_BYTES } from "./memory-file.ts";
import { RunList } from "./page-set.ts";

const { i32, u64, pointer } = FFIType;
const c = dlopen("libc.so.6", { ioctl: { args: [i32, u64, pointer], returns: i32 } }).symbols;

/** _IOWR('f', 16, struct pm_scan_arg). */
const PAGEMAP_SCAN = 0xc0606610;
const IS_FILE = 1n << 2n;
const IS_PRESENT = 1n << 3n;
const IS_SWAPPED = 1n << 4n;
/** Runs that one PAGEMAP_SCAN returns: 24 bytes each. */
const REGIONS = 4096;
const REGION_WORDS = 6;

/** High word of a pagemap entry: present (bit 63) or swapped (62), file-backed (61). */
const ENTRY_PRESENT_OR_SWAPPED = 0xc000_0000;
const ENTRY_FILE = 0x2000_0000;
const ENTRY_BYTES = 8;
/** Entries that are read at once. */
const ENTRIES = 131_072;

/** How copied pages are found: `scan` by PAGEMAP_SCAN (Linux 6.7), `entries` by reading an entry for each page. */
export type PagemapWay = "scan" | "entries";

/**
 * Runs of pages that a process has copied, in words as a {@link PageSet} has them; their source counts up from 0.
 * @param start address of the mapping.
 * @param way unless given, the quickest one that this kernel has.
 * @throws `qemu_exited` if there is no such process; `not_capturable` if it may not be read.
 */
export function copiedPages(pid: number, start: number, lengthBytes: number, way?: PagemapWay): Uint32Array {
  const path = `/proc/${pid}/pagemap`;
  const fd = openProcess(path);
  try {
    const runs = way === "entries" ? undefined : scan(fd, start, lengthBytes);
    if (runs !== undefined) return runs;
    if (way === "scan")
      throw new MayflyError("system_call_failed", `Cannot scan ${path}: this kernel has no PAGEMAP_SCAN`);
    return readEntries(fd, start, lengthBytes, path);
  } finally {
    closeSync(fd);
  }
}

/** @returns undefined if the kernel has no such call. */
function scan(fd: number, start: number, lengthBytes: number): Uint32Array | undefined {
  const regions = new Uint32Array(REGIONS * REGION_WORDS);
  const end = start + lengthBytes;
  const runs = new RunList();
  let source = 0;
  let at = start;
  // Where a scan ended is told wrongly by kernels up to 6.18 at least, if it took more than one of their own steps: go on after the last run.
  for (let found = 1; found > 0 && at < end; ) {
    // size, flags, start, end, walk_end, vec, vec_len, max_pages, category_inverted, _mask, _anyof_mask, return_mask
    const wanted = [96n, 0n, at, end, 0n, ptr(regions), REGIONS, 0n, IS_FILE, IS_FILE, IS_PRESENT | IS_SWAPPED, 0n];
    found = c.ioctl(fd, PAGEMAP_SCAN, ptr(BigUint64Array.from(wanted, BigInt)));
    if (found < 0) return undefined;
    for (let region = 0; region < found * REGION_WORDS; region += REGION_WORDS) {
      const from = (regions[region] ?? 0) + (regions[region + 1] ?? 0) * 2 ** 32;
      const to = (regions[region + 2] ?? 0) + (regions[region + 3] ?? 0) * 2 ** 32;
      const pages = (to - from) / PAGE_BYTES;
      runs.add((from - start) / PAGE_BYTES, pages, source);
      source += pages;
      at = to;
    }
  }
  return runs.finish();
}

function readEntries(fd: number, start: number, lengthBytes: number, path: string): Uint32Array {
  const total = lengthBytes / PAGE_BYTES;
  const entries = new Uint32Array(2 * Math.min(ENTRIES, total));
  const runs = new RunList();
  let source = 0;
  for (let first = 0; first < total; first += ENTRIES) {
    const count = Math.min(ENTRIES, total - first);
    readAt(
      fd,
      new Uint8Array(entries.buffer, 0, count * ENTRY_BYTES),
      (start / PAGE_BYTES + first) * ENTRY_BYTES,
      path,
    );
    for (let index = 0; index < count; index++) {
      const high = entries[2 * index + 1] ?? 0;
      if ((high & ENTRY_PRESENT_OR_SWAPPED) === 0 || (high & ENTRY_FILE) !== 0) continue;
      runs.add(first + index, 1, source);
      source += 1;
    }
  }
  return runs.finish();
}

/** Opens a file of a process. @throws `qemu_exited`, `not_capturable`. */
export function openProcess(path: string, flags: "r" | "r+" = "r"): number {
  try {
    return openSync(path, flags);
  } catch (error) {
    throw refused(path, error instanceof Error && "code" in error ? String(error.code) : String(error), error);
  }
}

/** What a failed access to a process' memory means. */
export function refused(path: string, errno: string, cause?: unknown): MayflyError {
  const options = { details: { path }, ...(cause === undefined ? {} : { cause }) };
  if (["ENOENT", "ESRCH"].includes(errno)) {
    return new MayflyError("qemu_exited", `Cannot read the memory in ${path}: the process has ended`, options);
  }
  if (!["EPERM", "EACCES"].includes(errno)) {
    return new MayflyError("system_call_failed", `Cannot access the memory in ${path}: ${errno}`, options);
  }
  const why =
    "this needs the rights of a debugger, which root has (others: only over their own children, Yama's ptrace_scope)";
  return new MayflyError("not_capturable", `Cannot access the memory in ${path}: ${errno}; ${why}`, options);
}
