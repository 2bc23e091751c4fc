import { heapStats } from "bun:jsc";
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { collectGarbage, giveBackStartMemory, unchangedFilePages } from "./own-memory.ts";

const MAPPINGS = `00200000-00300000 r--p 00000000 fe:00 53  /bin/program
Rss:                6752 kB
Anonymous:             0 kB
00300000-00400000 r-xp 00100000 fe:00 53  /bin/program
Rss:               25816 kB
Anonymous:             0 kB
00400000-00410000 r--p 00200000 fe:00 53  /bin/program
Anonymous:            12 kB
00410000-00420000 rw-p 00200000 fe:00 53  /bin/program
Anonymous:             0 kB
00500000-00600000 r--p 00000000 00:00 0
Anonymous:             0 kB
00600000-00700000 r--s 00000000 fe:00 54  /shared
Anonymous:             0 kB
ffffffffff600000-ffffffffff601000 r-xp 00000000 00:00 0  [vsyscall]
Anonymous:             0 kB
`;

test("only pages that are the file's own can be given back: no relocated, writable, shared or anonymous ones", () => {
  expect(unchangedFilePages(MAPPINGS)).toEqual([
    { start: 0x200000n, end: 0x300000n },
    { start: 0x300000n, end: 0x400000n },
  ]);
});

test("a process that has given back what its start used has less, and goes on", async () => {
  const script = `
    import { readFileSync } from "node:fs";
    import { giveBackStartMemory } from ${JSON.stringify(`${import.meta.dir}/own-memory.ts`)};
    const rss = () => Number(/^VmRSS:\\s+(\\d+)/m.exec(readFileSync("/proc/self/status", "latin1"))?.[1]);
    const before = rss();
    await giveBackStartMemory();
    console.log(JSON.stringify({ before, after: rss(), works: [3, 1, 2].sort().join(), url: new URL("http://a/b").pathname }));
  `;
  const child = Bun.spawn([process.execPath, "-e", script], { stdout: "pipe", stderr: "inherit" });
  const { before, after, ...rest } = JSON.parse(await new Response(child.stdout).text());
  expect(rest).toEqual({ works: "1,2,3", url: "/b" });
  expect(after).toBeLessThan(0.8 * before);
  expect(await child.exited).toBe(0);
});

test("it can be done again and again", async () => {
  for (let count = 0; count < 3; count += 1) await giveBackStartMemory();
  expect(readFileSync("/proc/self/status", "latin1")).toContain("VmRSS");
});

test("a process that is larger than it should be gives pages of program files back, if it has more of them than it uses", () => {
  const fileBytes = () => Number(readFileSync("/proc/self/statm", "latin1").split(" ")[2]) * 4096;
  const everything = { totalBytes: 2 ** 40, fileBytes: 2 ** 40 };
  collectGarbage({ totalBytes: 0, fileBytes: 0 });
  const least = fileBytes();
  for (const text of ["[1,2]", '{"a":{"b":1}}']) structuredClone(JSON.parse(text));
  new Intl.DateTimeFormat("de", { dateStyle: "full" }).format(0);
  const used = fileBytes();
  expect(used).toBeGreaterThan(least);
  collectGarbage({ ...everything, totalBytes: 0 });
  expect(fileBytes()).toBeGreaterThanOrEqual(used);
  collectGarbage({ ...everything, fileBytes: 0 });
  expect(fileBytes()).toBeGreaterThanOrEqual(used);
  collectGarbage({ totalBytes: 0, fileBytes: 0 });
  expect(fileBytes()).toBeLessThan(used);
});

test("garbage of a process that is larger than it should be is collected, however little that has grown since the last time", () => {
  // In pieces: what the collector takes for a reference keeps one of them.
  const kept = Array.from({ length: 300 }, () => Array.from({ length: 1000 }, (_, index) => ({ index })));
  collectGarbage();
  kept.length = 0;
  const heap = () => heapStats().objectCount;
  const before = heap();
  collectGarbage({ totalBytes: 2 ** 40, fileBytes: 2 ** 40 });
  expect(heap()).toBeGreaterThanOrEqual(before);
  collectGarbage({ totalBytes: 0, fileBytes: 2 ** 40 });
  expect(heap()).toBeLessThan(before - 200_000);
});
