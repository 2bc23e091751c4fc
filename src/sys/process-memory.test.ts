import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { memoryFile, PAGE, PrivateMapping } from "../../tests/support/private-mapping.ts";
import { MayflyError } from "../contract/errors.ts";
import { copiedPages } from "./pagemap.ts";
import { capturePages, guestMapping, MemoryCapture, writePages } from "./process-memory.ts";

const mayMount = Bun.spawnSync(["unshare", "--mount", "true"]).exitCode === 0;
const PAGES = 1024;
/** Every third page has its number, modulo 255, plus 1; the others are holes. */
const FILLED = new Map(Array.from({ length: PAGES / 3 }, (_, index) => [3 * index, ((3 * index) % 255) + 1]));

let directory: string;
let base: string;
let guest: PrivateMapping;
beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), "mayfly-process-memory-"));
  base = join(directory, "memory");
  await memoryFile(base, PAGES, FILLED);
  guest = await PrivateMapping.of(base, PAGES * PAGE);
});
beforeEach(() => guest.remap());
afterAll(async () => {
  await guest.kill();
  rmSync(directory, { recursive: true, force: true });
});

/** Pages copied as [first page, number], found both ways, which have to agree. */
function copied(): [number, number][] {
  const { start, lengthBytes } = guest.mapping;
  const found = (["scan", "entries"] as const).map((way) => {
    const runs = copiedPages(guest.pid, start, lengthBytes, way);
    return Array.from({ length: runs.length / 3 }, (_, run): [number, number] => [
      runs[3 * run] ?? 0,
      runs[3 * run + 1] ?? 0,
    ]);
  });
  expect(found[0]).toEqual(found[1] ?? []);
  return found[0] ?? [];
}

function failure(work: () => unknown): MayflyError {
  try {
    work();
  } catch (error) {
    if (error instanceof MayflyError) return error;
  }
  throw new Error("expected a MayflyError");
}

describe("pages that a process has copied", () => {
  test("are none after mapping, and none after reading data and holes", async () => {
    expect(copied()).toEqual([]);
    await guest.tell({ do: "read", page: 0, pages: PAGES });
    expect(copied()).toEqual([]);
  });

  test("are those written, over data and holes, zeroes and equal bytes among them", async () => {
    await guest.tell({ do: "fill", page: 3, pages: 1, byte: 7 });
    await guest.tell({ do: "fill", page: 10, pages: 5, byte: 0 });
    await guest.tell({ do: "rewrite", page: 600, pages: 1 });
    await guest.tell({ do: "random", page: PAGES - 1, pages: 1, seed: 1 });
    expect(copied()).toEqual([
      [3, 1],
      [10, 5],
      [600, 1],
      [PAGES - 1, 1],
    ]);
  });

  test("are no longer those that were discarded: they are the file's again", async () => {
    await guest.tell({ do: "fill", page: 8, pages: 4, byte: 7 });
    expect(await guest.tell({ do: "advise", page: 9, pages: 2, advice: 4 })).toBe(0);
    expect(copied()).toEqual([
      [8, 1],
      [11, 1],
    ]);
  });

  test("are all of them where all are written, and many small runs", async () => {
    for (let page = 1; page < PAGES; page += 2) await guest.tell({ do: "fill", page, pages: 1, byte: 1 });
    expect(copied().length).toBe(PAGES / 2);
    await guest.tell({ do: "random", page: 0, pages: PAGES, seed: 5 });
    expect(copied()).toEqual([[0, PAGES]]);
  });

  test("are each found once however many runs there are, which takes several scans", async () => {
    const pages = 12_000;
    const large = join(directory, "large");
    await memoryFile(large, pages, new Map());
    await guest.remap(large, pages * PAGE);
    for (let page = 0; page < pages; page += 2) await guest.tell({ do: "fill", page, pages: 1, byte: 1 });
    expect(copied()).toEqual(Array.from({ length: pages / 2 }, (_, index): [number, number] => [2 * index, 1]));
    await guest.tell({ do: "fill", page: 511, pages: 4000, byte: 1 });
    expect(copied().length).toBe(6000 - 2001 + 1);
    await guest.remap(base, PAGES * PAGE);
  });

  test.skipIf(!mayMount)("are told page by page where the file's own pages are huge ones", async () => {
    const huge = join(directory, "huge");
    mkdirSync(huge);
    expect(Bun.spawnSync(["mount", "-t", "tmpfs", "-o", "huge=always,size=64m", "tmpfs", huge]).exitCode).toBe(0);
    try {
      const file = join(huge, "memory");
      // Twice what a huge page has, with something on every page: nothing of it is a hole.
      await memoryFile(file, PAGES, new Map(Array.from({ length: PAGES }, (_, page) => [page, 9])));
      await guest.remap(file, PAGES * PAGE);
      await guest.tell({ do: "read", page: 0, pages: PAGES });
      expect(copied()).toEqual([]);
      await guest.tell({ do: "fill", page: 100, pages: 3, byte: 0 });
      await guest.tell({ do: "random", page: 511, pages: 2, seed: 2 });
      expect(copied()).toEqual([
        [100, 3],
        [511, 2],
      ]);
      using pages = await capturePages(guest.pid, guest.mapping);
      expect(pages.memory.view(0, 1)[0]).toBe(0);
      await guest.remap(base, PAGES * PAGE);
    } finally {
      Bun.spawnSync(["umount", "-l", huge]);
    }
  });

  test("stay those when the kernel pages them out, if there is swap", async () => {
    await guest.tell({ do: "random", page: 100, pages: 50, seed: 9 });
    const before = guest.contents();
    // MADV_PAGEOUT; without swap it leaves them.
    await guest.tell({ do: "advise", page: 0, pages: PAGES, advice: 21 });
    expect(copied()).toEqual([[100, 50]]);
    using pages = await capturePages(guest.pid, guest.mapping);
    expect(Buffer.compare(pages.memory.view(0, 50 * PAGE), before.subarray(100 * PAGE, 150 * PAGE))).toBe(0);
  });
});

describe("a capture", () => {
  test("has the bytes of the pages, in order", async () => {
    await guest.tell({ do: "random", page: 5, pages: 3, seed: 3 });
    await guest.tell({ do: "fill", page: 700, pages: 2, byte: 0 });
    for (const way of ["scan", "entries"] as const) {
      using pages = await capturePages(guest.pid, guest.mapping, way);
      expect([...pages]).toEqual([
        { startPage: 5, pages: 3, sourcePage: 0 },
        { startPage: 700, pages: 2, sourcePage: 3 },
      ]);
      expect({ pages: pages.pages, zero: pages.zeroPages, bytes: pages.memoryBytes }).toEqual({
        pages: 5,
        zero: 0,
        bytes: PAGES * PAGE,
      });
      const memory = guest.contents();
      expect(Buffer.compare(pages.memory.view(0, 3 * PAGE), memory.subarray(5 * PAGE, 8 * PAGE))).toBe(0);
      expect(Buffer.compare(pages.memory.view(3 * PAGE, 2 * PAGE), Buffer.alloc(2 * PAGE))).toBe(0);
    }
  });

  test("made ready earlier has what was written since", async () => {
    using capture = await MemoryCapture.prepare(guest.pid, guest.mapping);
    await guest.tell({ do: "random", page: 0, pages: PAGES, seed: 8 });
    using pages = await capture.take();
    expect(Buffer.compare(pages.memory.view(0, PAGES * PAGE), guest.contents())).toBe(0);
    await expect(capture.take()).rejects.toThrow("taken twice");
  });

  test("reads pages that the process itself may not", async () => {
    await guest.tell({ do: "random", page: 5, pages: 3, seed: 3 });
    await guest.tell({ do: "random", page: 50, pages: 3, seed: 4 });
    const before = guest.contents();
    await guest.tell({ do: "protect", page: 6, pages: 1, protection: 0 });
    using pages = await capturePages(guest.pid, guest.mapping);
    expect(Buffer.compare(pages.memory.view(0, 3 * PAGE), before.subarray(5 * PAGE, 8 * PAGE))).toBe(0);
    expect(Buffer.compare(pages.memory.view(3 * PAGE, 3 * PAGE), before.subarray(50 * PAGE, 53 * PAGE))).toBe(0);
    await guest.tell({ do: "protect", page: 6, pages: 1, protection: 3 });
  });

  test("written into another process makes its memory the same, and both stay apart", async () => {
    await guest.tell({ do: "random", page: 17, pages: 300, seed: 4 });
    for (let page = 400; page < PAGES; page += 2) await guest.tell({ do: "fill", page, pages: 1, byte: page & 255 });
    using pages = await capturePages(guest.pid, guest.mapping);
    using child = await PrivateMapping.of(base, PAGES * PAGE);
    await writePages(child.pid, child.mapping, pages);
    expect(Buffer.compare(child.contents(), guest.contents())).toBe(0);
    await child.tell({ do: "fill", page: 20, pages: 1, byte: 1 });
    expect(Buffer.compare(child.contents(), guest.contents())).not.toBe(0);
    await child.kill();
  });

  test("is not written into a memory of another size", async () => {
    using pages = await capturePages(guest.pid, guest.mapping);
    const smaller = { ...guest.mapping, lengthBytes: PAGE };
    await expect(writePages(guest.pid, smaller, pages)).rejects.toMatchObject({ code: "state_load_failed" });
  });

  test("of a process that has ended says so", async () => {
    const child = await PrivateMapping.of(base, PAGES * PAGE);
    await child.tell({ do: "fill", page: 20, pages: 1, byte: 1 });
    const { pid, mapping } = child;
    using capture = await MemoryCapture.prepare(pid, mapping);
    using pages = await capturePages(pid, mapping);
    await child.kill();
    await expect(capture.take()).rejects.toMatchObject({ code: "qemu_exited" });
    await expect(writePages(pid, mapping, pages)).rejects.toMatchObject({ code: "qemu_exited" });
    expect(failure(() => guestMapping(pid, base)).code).toBe("qemu_exited");
  });
});

const AS_NOBODY = [
  "setpriv",
  "--reuid=65534",
  "--regid=65534",
  "--clear-groups",
  "--inh-caps=-all",
  "--bounding-set=-all",
];
/** Whether this process may become another user's, who can run these sources. */
const mayDrop =
  process.geteuid?.() === 0 &&
  Bun.which("setpriv") !== null &&
  [process.execPath, import.meta.path].every(
    (path) => Bun.spawnSync([...AS_NOBODY, "test", "-r", path]).exitCode === 0,
  );
test.skipIf(!mayDrop)("who has no rights over a process is told so, whatever is tried", async () => {
  const { start, lengthBytes } = guest.mapping;
  const script = `
    const { capturePages, guestMapping, writePages } = await import("${join(import.meta.dir, "process-memory.ts")}");
    const { AnonymousMemory } = await import("${join(import.meta.dir, "anonymous-memory.ts")}");
    const { PageSet } = await import("${join(import.meta.dir, "page-set.ts")}");
    const mapping = { start: ${start}, lengthBytes: ${lengthBytes} };
    const set = new PageSet(mapping.lengthBytes, Uint32Array.of(0, 1, 0), new AnonymousMemory(${PAGE}), true);
    const tries = [() => guestMapping(${guest.pid}, "x"), () => capturePages(${guest.pid}, mapping),
      () => writePages(${guest.pid}, mapping, set)];
    for (const each of tries) console.log(await Promise.resolve().then(each).then(() => "done", (error) => error.code));`;
  const { stdout, stderr } = Bun.spawnSync([...AS_NOBODY, process.execPath, "-e", script], {
    cwd: "/",
    env: { HOME: "/nonexistent" },
  });
  expect(`${stdout}${stderr}`.trim().split("\n")).toEqual(["not_capturable", "not_capturable", "not_capturable"]);
});

describe("the mapping of a memory file", () => {
  afterEach(() => guest.remap(base));

  test("is found by the file, whatever it is called now", async () => {
    const { start } = guest.mapping;
    const other = join(directory, "other");
    symlinkSync(base, other);
    expect(guestMapping(guest.pid, other)).toEqual({ start, lengthBytes: PAGES * PAGE });
    rmSync(other);
    renameSync(base, other);
    expect(guestMapping(guest.pid, other).start).toBe(start);
    renameSync(other, base);
  });

  test("is found by its name when the file is gone", async () => {
    const gone = join(directory, "gone");
    await memoryFile(gone, PAGES, FILLED);
    await guest.remap(gone);
    rmSync(gone);
    expect(guestMapping(guest.pid, gone).lengthBytes).toBe(PAGES * PAGE);
  });

  test("is one, also if the kernel has split it", async () => {
    await guest.tell({ do: "protect", page: 6, pages: 4, protection: 1 });
    expect(guestMapping(guest.pid, base).lengthBytes).toBe(PAGES * PAGE);
  });

  test("that is not there, or only partly, is refused", async () => {
    const other = join(directory, "unmapped");
    await memoryFile(other, 1, new Map());
    expect(failure(() => guestMapping(guest.pid, other))).toMatchObject({ code: "state_load_failed" });
    expect(failure(() => guestMapping(guest.pid, other)).message).toContain("mapped 0 times");
  });
});
