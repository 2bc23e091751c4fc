/** Which pages differ between two snapshots of one base, or a snapshot and its base. */
import type { SnapshotDiff } from "../contract/snapshot.ts";
import { PAGE_BYTES } from "../sys/memory-file.ts";
import { type PageSet, RUN_WORDS, RunList, ZERO_SOURCE } from "../sys/page-set.ts";
import type { PagesFile } from "./pages.ts";

/** Most ranges that are told. */
const MAX_RANGES = 10_000;

/**
 * Compares two files of pages; a page that only one of them has differs, since none has pages that equal the base's.
 * @param from undefined: the base.
 * @throws `snapshot_corrupt`.
 */
export async function differingRanges(
  to: PagesFile,
  from: PagesFile | undefined,
): Promise<Pick<SnapshotDiff, "pages" | "ranges" | "truncated">> {
  const list = new RunList();
  if (from === undefined) {
    const { runs } = to.table;
    for (let at = 0; at < runs.length; at += RUN_WORDS) list.add(runs[at] ?? 0, runs[at + 1] ?? 0, ZERO_SOURCE);
    return told(list.finish());
  }
  await using a = new PageCursor(to);
  await using b = new PageCursor(from);
  for (;;) {
    // Only where the pages of a part are through is there anything to wait for.
    if (a.needsMore) await a.more();
    if (b.needsMore) await b.more();
    const page = Math.min(a.page, b.page);
    if (page === Number.POSITIVE_INFINITY) return told(list.finish());
    const [inA, inB] = [a.page === page, b.page === page];
    if (!(inA && inB && a.equals(b))) list.add(page, 1, ZERO_SOURCE);
    if (inA) a.step();
    if (inB) b.step();
  }
}

/** Goes through the pages of a file; of its bytes there are some megabytes in memory. */
class PageCursor implements AsyncDisposable {
  /** The page it is at; infinity: behind the last. */
  page = -1;
  readonly #sets: AsyncGenerator<PageSet>;
  #set: PageSet | undefined;
  #word = 0;
  #inRun = 0;

  constructor(file: PagesFile) {
    this.#sets = file.sets();
  }

  get needsMore(): boolean {
    return this.#set === undefined && this.page !== Number.POSITIVE_INFINITY;
  }

  /** Reads the next part. */
  async more(): Promise<void> {
    const { value, done } = await this.#sets.next();
    [this.#set, this.#word, this.#inRun] = [done ? undefined : value, 0, 0];
    this.page = done ? Number.POSITIVE_INFINITY : (value.runs[0] ?? 0);
  }

  step(): void {
    const { runs } = this.#set ?? { runs: new Uint32Array(0) };
    this.#inRun += 1;
    if (this.#inRun === runs[this.#word + 1]) [this.#word, this.#inRun] = [this.#word + RUN_WORDS, 0];
    if (this.#word >= runs.length) this.#set = undefined;
    else this.page = (runs[this.#word] ?? 0) + this.#inRun;
  }

  equals(other: PageCursor): boolean {
    const [ours, theirs] = [this.#bytes(), other.#bytes()];
    if (ours === undefined || theirs === undefined) return ours === theirs;
    return Buffer.compare(ours, theirs) === 0;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#sets.return(undefined);
  }

  /** Bytes of the page; undefined for zeroes. */
  #bytes(): Uint8Array | undefined {
    const source = this.#set?.runs[this.#word + 2];
    if (source === undefined || source === ZERO_SOURCE) return undefined;
    return this.#set?.memory.view((source + this.#inRun) * PAGE_BYTES, PAGE_BYTES);
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
