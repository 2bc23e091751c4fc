/** Which pages differ between two snapshots of one base, or a snapshot and its base. */
import type { SnapshotDiff } from "../contract/snapshot.ts";
import { PAGE_BYTES } from "../sys/memory-file.ts";
import { RUN_WORDS, RunList, ZERO_SOURCE } from "../sys/page-set.ts";
import type { PagesFile } from "./pages.ts";

/** Most ranges that are told. */
const MAX_RANGES = 10_000;

/**
 * Compares two files of pages; a page that only one of them has differs, since none has pages that equal the base's.
 * @param from undefined: the base.
 */
export async function differingRanges(
  to: PagesFile,
  from: PagesFile | undefined,
): Promise<Pick<SnapshotDiff, "pages" | "ranges" | "truncated">> {
  const list = new RunList();
  if (from === undefined) {
    for (let at = 0; at < to.table.runs.length; at += RUN_WORDS) {
      list.add(to.table.runs[at] ?? 0, to.table.runs[at + 1] ?? 0, ZERO_SOURCE);
    }
    return told(list.finish());
  }
  using ours = await to.load();
  using theirs = await from.load();
  const [left, right] = [pagesOf(ours.runs), pagesOf(theirs.runs)];
  let [a, b] = [left.next(), right.next()];
  let compared = 0;
  while (!a.done || !b.done) {
    const page = Math.min(
      a.done ? Number.POSITIVE_INFINITY : a.value.page,
      b.done ? Number.POSITIVE_INFINITY : b.value.page,
    );
    const ofA = !a.done && a.value.page === page ? a.value : undefined;
    const ofB = !b.done && b.value.page === page ? b.value : undefined;
    const isSame =
      ofA !== undefined &&
      ofB !== undefined &&
      (ofA.source === ZERO_SOURCE || ofB.source === ZERO_SOURCE
        ? ofA.source === ofB.source
        : Buffer.compare(
            ours.memory.view(ofA.source * PAGE_BYTES, PAGE_BYTES),
            theirs.memory.view(ofB.source * PAGE_BYTES, PAGE_BYTES),
          ) === 0);
    if (!isSame) list.add(page, 1, ZERO_SOURCE);
    if (ofA !== undefined) a = left.next();
    if (ofB !== undefined) b = right.next();
    compared += 1;
    if (compared % TURN_PAGES === 0) await new Promise(setImmediate);
  }
  return told(list.finish());
}

/** Compared until others get their turn. */
const TURN_PAGES = 4096;

function* pagesOf(runs: Uint32Array): Generator<{ page: number; source: number }> {
  for (let word = 0; word < runs.length; word += RUN_WORDS) {
    const [start = 0, count = 0, source = 0] = [runs[word], runs[word + 1], runs[word + 2]];
    for (let page = 0; page < count; page++) {
      yield { page: start + page, source: source === ZERO_SOURCE ? ZERO_SOURCE : source + page };
    }
  }
}

function told(runs: Uint32Array): Pick<SnapshotDiff, "pages" | "ranges" | "truncated"> {
  const ranges: SnapshotDiff["ranges"] = [];
  let pages = 0;
  for (let word = 0; word < runs.length; word += RUN_WORDS) {
    const [start = 0, count = 0] = [runs[word], runs[word + 1]];
    pages += count;
    if (ranges.length < MAX_RANGES) ranges.push({ startBytes: start * PAGE_BYTES, lengthBytes: count * PAGE_BYTES });
  }
  return { pages, ranges, truncated: runs.length / RUN_WORDS > MAX_RANGES };
}
