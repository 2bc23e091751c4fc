import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { digestMemoryFile, PAGE_BYTES } from "./memory-file.ts";

const PAGES = 600;
let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "mayfly-memory-"));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

/** A file of so many pages: `d` pages hold data, `z` pages zeroes, `h` pages are holes. */
async function make(name: string, kinds: readonly string[]): Promise<string> {
  const path = join(directory, name);
  writeFileSync(path, "");
  truncateSync(path, kinds.length * PAGE_BYTES);
  const file = await open(path, "r+");
  for (const [page, kind] of kinds.entries()) {
    if (kind === "h") continue;
    const bytes = Buffer.alloc(PAGE_BYTES);
    if (kind === "d") bytes.writeUInt32LE(page + 1, (page * 13) % (PAGE_BYTES - 4));
    await file.write(bytes, 0, PAGE_BYTES, page * PAGE_BYTES);
  }
  await file.close();
  return path;
}

test("a checksum depends on the pages that are not zero and where they are, not on what is a hole", async () => {
  const kind = fc.constantFrom("d", "d", "z", "h");
  let run = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(kind, { minLength: 1, maxLength: PAGES }), async (kinds) => {
      run += 1;
      const path = await make(`a${run}`, kinds);
      const dense = await make(
        `b${run}`,
        kinds.map((each) => (each === "h" ? "z" : each)),
      );
      const before = await digestMemoryFile(path, { trim: false });
      expect(before.nonZeroPages).toBe(kinds.filter((each) => each === "d").length);
      expect((await digestMemoryFile(dense, { trim: false })).sha256).toBe(before.sha256);
      const trimmed = await digestMemoryFile(dense, { trim: true });
      expect(trimmed.sha256).toBe(before.sha256);
      expect(trimmed.allocatedBytes).toBeLessThanOrEqual(before.nonZeroPages * PAGE_BYTES + 65_536);
      expect(statSync(dense).size).toBe(kinds.length * PAGE_BYTES);
      expect((await digestMemoryFile(dense, { trim: false })).sha256).toBe(before.sha256);
    }),
    { numRuns: 20 },
  );
});

test("a page that moved or changed changes the checksum", async () => {
  const sums = new Set<string>();
  for (const kinds of [
    ["d", "z"],
    ["z", "d"],
    ["d", "d"],
    ["z", "z"],
  ]) {
    sums.add((await digestMemoryFile(await make(kinds.join(""), kinds), { trim: true })).sha256);
  }
  expect(sums.size).toBe(4);
});
