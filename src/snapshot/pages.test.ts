import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { memoryFile, PAGE, PrivateMapping } from "../../tests/support/private-mapping.ts";
import { MayflyError } from "../contract/errors.ts";
import { AnonymousMemory } from "../sys/anonymous-memory.ts";
import { digestMemoryFile } from "../sys/memory-file.ts";
import { PageSet, RunList, ZERO_SOURCE } from "../sys/page-set.ts";
import { capturePages } from "../sys/process-memory.ts";
import { differingRanges } from "./diff.ts";
import { applyPages, openPagesFile, PagesFile, writePagesFile } from "./pages.ts";
import { promote } from "./promote.ts";
import { reduce } from "./reduce.ts";

const PAGES = 700;
const BASE_BYTE = 9;
let directory: string;
let base: string;
let parent: PrivateMapping;
let child: PrivateMapping;
let number = 0;
const fresh = () => join(directory, `pages-${++number}`);

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), "mayfly-pages-"));
  base = join(directory, "memory");
  const filled = Array.from({ length: PAGES }, (_, page) => page).filter((page) => page % 3 === 0 || page > 600);
  await memoryFile(base, PAGES, new Map(filled.map((page) => [page, BASE_BYTE])));
  parent = await PrivateMapping.of(base, PAGES * PAGE);
  child = await PrivateMapping.of(base, PAGES * PAGE);
});
afterAll(async () => {
  await Promise.all([parent.kill(), child.kill()]);
  rmSync(directory, { recursive: true, force: true });
});

const range = fc
  .tuple(fc.nat({ max: PAGES - 1 }), fc.integer({ min: 1, max: 400 }))
  .map(([page, pages]) => ({ page, pages: Math.min(pages, PAGES - page) }));
const order = fc.oneof(
  range.chain((where) =>
    fc.integer({ min: 1, max: 2 ** 31 }).map((seed) => ({ do: "random" as const, ...where, seed })),
  ),
  range.chain((where) => fc.constantFrom(0, BASE_BYTE, 77).map((byte) => ({ do: "fill" as const, ...where, byte }))),
  range.map((where) => ({ do: "rewrite" as const, ...where })),
  range.map((where) => ({ do: "read" as const, ...where })),
  // MADV_DONTNEED, MADV_PAGEOUT, MADV_COLD
  range.chain((where) => fc.constantFrom(4, 21, 20).map((advice) => ({ do: "advise" as const, ...where, advice }))),
);

test("whatever a guest has written: captured, reduced, stored and laid over the base again it is the same memory", async () => {
  const baseBytes = readFileSync(base);
  await fc.assert(
    fc.asyncProperty(fc.array(order, { maxLength: 12 }), async (orders) => {
      await Promise.all([parent.remap(), child.remap()]);
      for (const each of orders) await parent.tell(each);
      const memory = parent.contents();
      using captured = await capturePages(parent.pid, parent.mapping);
      using reduced = await reduce(captured, base);
      const path = fresh();
      const summary = await writePagesFile(path, reduced);
      await using file = await openPagesFile(path);
      await applyPages(child.pid, child.mapping, file);
      expect(Buffer.compare(child.contents(), memory)).toBe(0);

      const differing = Array.from({ length: PAGES }, (_, page) => page).filter(
        (page) =>
          Buffer.compare(
            memory.subarray(page * PAGE, (page + 1) * PAGE),
            baseBytes.subarray(page * PAGE, (page + 1) * PAGE),
          ) !== 0,
      );
      const zero = differing.filter((page) =>
        memory.subarray(page * PAGE, (page + 1) * PAGE).every((byte) => byte === 0),
      );
      expect(summary).toMatchObject({
        count: differing.length,
        zeroCount: zero.length,
        sizeBytes: statSync(path).size,
      });
      expect((await differingRanges(file, undefined)).pages).toBe(differing.length);

      const whole = fresh();
      writeFileSync(whole, "");
      await promote(base, path, whole);
      expect(Buffer.compare(readFileSync(whole), memory)).toBe(0);
      for (const each of [path, whole]) rmSync(each);
    }),
    { numRuns: 25 },
  );
}, 60_000);

test("a page in one of two snapshots differs, and one in both if its bytes do", async () => {
  const paths = [fresh(), fresh()];
  for (const [index, path] of paths.entries()) {
    await parent.remap();
    await parent.tell({ do: "random", page: 10, pages: 5, seed: 5 });
    await parent.tell({ do: "random", page: 14, pages: 1, seed: 50 + index });
    await parent.tell({ do: "fill", page: 300 + index, pages: 3, byte: 0 });
    await parent.tell({ do: "fill", page: 690, pages: 1, byte: index });
    using captured = await capturePages(parent.pid, parent.mapping);
    using reduced = await reduce(captured, base);
    await writePagesFile(path, reduced);
  }
  await using from = await openPagesFile(paths[0] ?? "");
  await using to = await openPagesFile(paths[1] ?? "");
  // 300 had data in the base, 301 and 302 were holes, 303 had data.
  expect(await differingRanges(to, from)).toEqual({
    pages: 4,
    ranges: [14, 300, 303, 690].map((page) => ({ startBytes: page * PAGE, lengthBytes: PAGE })),
    truncated: false,
  });
});

test("promotion keeps holes: neither the base's nor pages that became zero take space", async () => {
  const large = join(directory, "large");
  await memoryFile(
    large,
    16_384,
    new Map([
      [0, 1],
      [9000, 2],
    ]),
  );
  using guest = await PrivateMapping.of(large, 16_384 * PAGE);
  await guest.tell({ do: "fill", page: 9000, pages: 1, byte: 0 });
  await guest.tell({ do: "random", page: 5000, pages: 2, seed: 2 });
  using captured = await capturePages(guest.pid, guest.mapping);
  using reduced = await reduce(captured, large);
  const [path, whole] = [fresh(), fresh()];
  await writePagesFile(path, reduced);
  writeFileSync(whole, "");
  await promote(large, path, whole);
  expect(Buffer.compare(readFileSync(whole), guest.contents())).toBe(0);
  expect(await digestMemoryFile(whole, { trim: false })).toMatchObject({ nonZeroPages: 3 });
  expect(statSync(whole).blocks * 512).toBeLessThan(128 * 1024);
  await guest.kill();
});

/** A set of pages whose bytes say where they are from. */
function sample(runs: readonly { pages: number; gap: number; zero: boolean }[]): PageSet {
  const list = new RunList();
  let [at, source] = [0, 0];
  for (const { pages, gap, zero } of runs) {
    at += gap;
    list.add(at, pages, zero ? ZERO_SOURCE : source);
    at += pages;
    if (!zero) source += pages;
  }
  const memory = new AnonymousMemory(source * PAGE);
  for (let page = 0; page < source; page++) memory.view(page * PAGE, PAGE).fill(1 + (page % 251));
  return new PageSet((at + 3) * PAGE, list.finish(), memory, true);
}

const runsOf = fc.array(
  fc.record({ pages: fc.integer({ min: 1, max: 600 }), gap: fc.nat({ max: 9 }), zero: fc.boolean() }),
  { maxLength: 12 },
);

test("what is stored is read again, at once and in parts", async () => {
  await fc.assert(
    fc.asyncProperty(runsOf, async (runs) => {
      const path = fresh();
      using pages = sample(runs);
      await writePagesFile(path, pages);
      await using file = await openPagesFile(path);
      using loaded = await file.load();
      expect(loaded.memoryBytes).toBe(pages.memoryBytes);
      expect([...loaded]).toEqual([...pages]);
      const inParts: { page: number; byte: number | undefined }[] = [];
      for await (const part of file.sets()) inParts.push(...bytesOf(part));
      expect(inParts).toEqual(bytesOf(pages));
      rmSync(path);
    }),
    { numRuns: 25 },
  );
}, 60_000);

function bytesOf(set: PageSet): { page: number; byte: number | undefined }[] {
  return [...set].flatMap(({ startPage, pages, sourcePage }) =>
    Array.from({ length: pages }, (_, index) => ({
      page: startPage + index,
      byte: sourcePage === undefined ? undefined : set.memory.view((sourcePage + index) * PAGE, 1)[0],
    })),
  );
}

test("two that are larger than what is read at once are compared page by page", async () => {
  const run = { pages: 9000, gap: 1, zero: false };
  const [left, right] = [fresh(), fresh()];
  {
    using ours = sample([run]);
    await writePagesFile(left, ours);
    ours.memory.view(4000 * PAGE, 1).fill(255);
    ours.memory.view(8999 * PAGE, 1).fill(255);
    await writePagesFile(right, ours);
  }
  await using from = await openPagesFile(left);
  await using to = await openPagesFile(right);
  expect(await differingRanges(to, from)).toMatchObject({
    pages: 2,
    ranges: [4001, 9000].map((page) => ({ startBytes: page * PAGE, lengthBytes: PAGE })),
  });
  expect(await differingRanges(to, to)).toMatchObject({ pages: 0 });
  await Promise.all([left, right].map((path) => rmSync(path)));
});

describe("a damaged or hostile file", () => {
  let path: string;
  let whole: Buffer;
  beforeAll(async () => {
    path = fresh();
    using pages = sample([
      { pages: 3, gap: 2, zero: false },
      { pages: 4, gap: 0, zero: true },
      { pages: 300, gap: 5, zero: false },
    ]);
    await writePagesFile(path, pages);
    whole = readFileSync(path);
  });

  /** What reading all of it says. */
  async function outcome(bytes: Uint8Array): Promise<string> {
    writeFileSync(path, bytes);
    try {
      await using file = await PagesFile.open(path);
      using _all = await file.load();
      return "none";
    } catch (error) {
      if (error instanceof MayflyError) return error.code;
      throw error;
    }
  }

  test("is refused whatever bit is flipped, wherever it is cut, whatever is added", async () => {
    expect(await outcome(whole)).toBe("none");
    const flipped = fc.tuple(fc.nat({ max: whole.length - 1 }), fc.integer({ min: 1, max: 255 })).map(([at, bits]) => {
      const bytes = Buffer.from(whole);
      bytes[at] = (bytes[at] ?? 0) ^ bits;
      return bytes;
    });
    const inTable = fc.tuple(fc.nat({ max: 150 }), fc.integer({ min: 1, max: 255 })).map(([at, bits]) => {
      const bytes = Buffer.from(whole);
      bytes[at] = (bytes[at] ?? 0) ^ bits;
      return bytes;
    });
    const cut = fc.nat({ max: whole.length - 1 }).map((length) => whole.subarray(0, length));
    const grown = fc.uint8Array({ minLength: 1 }).map((more) => Buffer.concat([whole, more]));
    await fc.assert(
      fc.asyncProperty(fc.oneof(flipped, inTable, cut, grown, fc.uint8Array()), async (bytes) => {
        expect(await outcome(bytes)).toBe("snapshot_corrupt");
      }),
      { numRuns: 150 },
    );
  }, 60_000);

  test("that promises more than it has is refused before room is made for it", async () => {
    const sizes: [offset: number, value: bigint][] = [
      [16, 2n ** 63n],
      [16, 4097n],
      [16, 0n],
      [24, 2n ** 40n],
      [24, 2n ** 64n - 1n],
      [32, 2n ** 27n],
    ];
    for (const [offset, value] of sizes) {
      const bytes = Buffer.from(whole);
      bytes.writeBigUInt64LE(value, offset);
      expect(await outcome(bytes)).toBe("snapshot_corrupt");
    }
  });

  test("whose checksums are right is refused for runs that overlap, go back, are empty or lie outside", async () => {
    const { checksum64 } = await import("../sys/hash.ts");
    const firstRun = 64;
    for (const words of [
      [8, 3, 0],
      [2, 0, 0],
      [2, 3, 2],
      [2, 2, 0],
      [0xffff_fff0, 0xff, 0],
      [4, 3, 0],
    ]) {
      const bytes = Buffer.from(whole);
      for (const [index, word] of words.entries()) bytes.writeUInt32LE(word, firstRun + 4 * index);
      bytes.writeBigUInt64LE(0n, 56);
      bytes.writeBigUInt64LE(checksum64(bytes.subarray(0, PAGE)), 56);
      expect([words, await outcome(bytes)]).toEqual([words, "snapshot_corrupt"]);
    }
  });
});
