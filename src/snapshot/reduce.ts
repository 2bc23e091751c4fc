/** Leaving out of a capture what the base has anyway. */

import { AnonymousMemory } from "../sys/anonymous-memory.ts";
import { openRead } from "../sys/disk-files.ts";
import { readAt } from "../sys/libc.ts";
import { PAGE_BYTES } from "../sys/memory-file.ts";
import { PageSet, RUN_WORDS, RunList, ZERO_SOURCE } from "../sys/page-set.ts";
import { corrupt } from "./format.ts";

/** Pages that are compared at once. */
const WINDOW_PAGES = 256;
const ZERO_PAGE = Buffer.alloc(PAGE_BYTES);

/**
 * Leaves out the pages that equal the base's (a hole of its file is zeroes), and marks those that are zero where the base's are not.
 * @param captured stays as it is; the result's bytes are its bytes, so it is disposed of after the result.
 * @throws `snapshot_corrupt` if the base is of another size.
 */
export async function reduce(captured: PageSet, baseMemoryPath: string): Promise<PageSet> {
  using base = openRead(baseMemoryPath);
  const { sizeBytes } = base;
  if (sizeBytes !== captured.memoryBytes) {
    throw corrupt(baseMemoryPath, `it has ${sizeBytes} bytes, the guest's memory ${captured.memoryBytes}`);
  }
  using buffer = new AnonymousMemory(WINDOW_PAGES * PAGE_BYTES);
  const list = new RunList();
  const { runs } = captured;
  let sinceTurn = 0;
  for (let word = 0; word < runs.length; word += RUN_WORDS) {
    const [start = 0, count = 0, source = 0] = [runs[word], runs[word + 1], runs[word + 2]];
    for (let done = 0; done < count; done += WINDOW_PAGES) {
      const pages = Math.min(WINDOW_PAGES, count - done);
      const ours = captured.memory.view((source + done) * PAGE_BYTES, pages * PAGE_BYTES);
      const theirs = buffer.view(0, pages * PAGE_BYTES);
      readAt(base.fd, theirs, (start + done) * PAGE_BYTES, baseMemoryPath);
      compareWindow(
        Buffer.from(ours.buffer),
        Buffer.from(theirs.buffer, 0, theirs.length),
        start + done,
        source + done,
        list,
      );
      sinceTurn += pages;
      if (sinceTurn < TURN_PAGES) continue;
      sinceTurn = 0;
      await new Promise(setImmediate);
    }
  }
  return new PageSet(captured.memoryBytes, list.finish(), captured.memory, false);
}

/** Compared until others get their turn. */
const TURN_PAGES = 4 * WINDOW_PAGES;

function compareWindow(ours: Buffer, theirs: Buffer, startPage: number, sourcePage: number, list: RunList): void {
  if (ours.equals(theirs)) return;
  for (let at = 0, page = 0; at < ours.length; at += PAGE_BYTES, page++) {
    if (ours.compare(theirs, at, at + PAGE_BYTES, at, at + PAGE_BYTES) === 0) continue;
    const isZero = ours.compare(ZERO_PAGE, 0, PAGE_BYTES, at, at + PAGE_BYTES) === 0;
    list.add(startPage + page, 1, isZero ? ZERO_SOURCE : sourcePage + page);
  }
}
