import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { listTree } from "./tree-listing.ts";

const limits = { entries: 100, contentBytes: 1000, deadlineMs: 10_000 };
let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "mayfly-tree-"));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

test("a listing counts, and changes with whatever changes", async () => {
  const seen = new Set<string>();
  const look = async () => {
    const listing = await listTree(directory, limits);
    seen.add(listing.sha256);
    return listing;
  };
  expect(await look()).toMatchObject({ entries: 1, contentBytes: 0 });
  writeFileSync(join(directory, "a\nb"), "12345");
  mkdirSync(join(directory, "sub"));
  symlinkSync("nowhere", join(directory, "sub/link"));
  const listing = await look();
  expect(listing).toMatchObject({ entries: 4, contentBytes: 5 });
  expect(Math.abs(listing.newestMs - Date.now())).toBeLessThan(5_000);
  expect(await look()).toEqual(listing);
  rmSync(join(directory, "sub/link"));
  symlinkSync("elsewhere", join(directory, "sub/link"));
  await look();
  expect(seen.size).toBe(3);
});

test("a tree beyond the limits, with another file system, or that is not there is refused", async () => {
  writeFileSync(join(directory, "a"), Buffer.alloc(600));
  writeFileSync(join(directory, "b"), Buffer.alloc(600));
  await expect(listTree(directory, limits)).rejects.toMatchObject({ code: "invalid_argument" });
  await expect(listTree(directory, { ...limits, contentBytes: 2000, entries: 2 })).rejects.toMatchObject({
    message: `Cannot take a snapshot of ${directory}: it has more than 2 files`,
  });
  await expect(listTree("/dev", { ...limits, entries: 1_000_000 })).rejects.toMatchObject({
    message: expect.stringMatching(/\/dev\/\w+ is another file system$/),
  });
  await expect(listTree(join(directory, "none"), limits)).rejects.toMatchObject({ code: "file_operation_failed" });
  await expect(listTree(directory, { ...limits, signal: AbortSignal.abort() })).rejects.toMatchObject({
    code: "cancelled",
  });
});
