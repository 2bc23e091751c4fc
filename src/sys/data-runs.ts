/** Which pages of a memory file have data, and how many of them are not among others. */
import { closeSync, fstatSync, openSync } from "node:fs";
import { seekData } from "./libc.ts";
import { PAGE_BYTES } from "./memory-file.ts";
import { RUN_WORDS, RunList } from "./page-set.ts";

/** Runs of the pages of a memory file that are no holes, in words as a page set has them. */
export function dataRuns(path: string): Uint32Array {
  const fd = openSync(path, "r");
  try {
    const { size } = fstatSync(fd);
    const runs = new RunList();
    let source = 0;
    for (let at = seekData(fd, 0, false, path); at !== undefined && at < size; ) {
      const end = Math.min(seekData(fd, at, true, path) ?? size, size);
      const first = Math.floor(at / PAGE_BYTES);
      const pages = Math.ceil(end / PAGE_BYTES) - first;
      runs.add(first, pages, source);
      source += pages;
      at = seekData(fd, end, false, path);
    }
    return runs.finish();
  } finally {
    closeSync(fd);
  }
}

/** How many pages of ascending runs are in none of others, which ascend, too. */
export function pagesOutside(runs: Uint32Array, others: Uint32Array): number {
  let [pages, other] = [0, 0];
  for (let at = 0; at < runs.length; at += RUN_WORDS) {
    const start = runs[at] ?? 0;
    const end = start + (runs[at + 1] ?? 0);
    pages += end - start;
    while (other < others.length && (others[other] ?? 0) + (others[other + 1] ?? 0) <= start) other += RUN_WORDS;
    for (let next = other; next < others.length && (others[next] ?? 0) < end; next += RUN_WORDS) {
      const from = Math.max(start, others[next] ?? 0);
      pages -= Math.min(end, (others[next] ?? 0) + (others[next + 1] ?? 0)) - from;
    }
  }
  return pages;
}
