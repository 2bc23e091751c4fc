import { expect, test } from "bun:test";
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import fc from "fast-check";
import { dataRuns, pagesOutside } from "./data-runs.ts";
import { PAGE_BYTES } from "./memory-file.ts";
import { RunList } from "./page-set.ts";

test("runs of data leave holes out, and pages outside of others are counted", () => {
  const path = join(mkdtempSync(join(tmpdir(), "mayfly-runs-")), "memory");
  const fd = openSync(path, "w");
  for (const page of [3, 4, 20]) writeSync(fd, Buffer.alloc(PAGE_BYTES, 1), 0, PAGE_BYTES, page * PAGE_BYTES);
  ftruncateSync(fd, 64 * PAGE_BYTES);
  closeSync(fd);
  expect([...dataRuns(path)]).toEqual([3, 2, 0, 20, 1, 2]);
  rmSync(dirname(path), { recursive: true });

  const runs = fc.uniqueArray(fc.nat({ max: 60 }), { maxLength: 40 }).map((pages) => pages.toSorted((a, b) => a - b));
  const asWords = (pages: readonly number[]) => {
    const list = new RunList();
    for (const [index, page] of pages.entries()) list.add(page, 1, index);
    return list.finish();
  };
  fc.assert(
    fc.property(runs, runs, (ours, theirs) => {
      const outside = ours.filter((page) => !theirs.includes(page)).length;
      expect(pagesOutside(asWords(ours), asWords(theirs))).toBe(outside);
    }),
  );
});
