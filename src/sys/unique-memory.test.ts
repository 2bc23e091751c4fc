import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { countMappings, uniqueMemoryOf } from "./unique-memory.ts";

const MAPPINGS = `00400000-00500000 r--s 00000000 fe:00 1  /state/memory
Size:               1024 kB
Rss:                 512 kB
Private_Dirty:        40 kB
Anonymous:            12 kB
KSM:                   4 kB
AnonHugePages:         0 kB
Swap:                  3 kB
SwapPss:               9 kB
00500000-00600000 rw-p 00100000 fe:00 1  /state/memory
Size:               1024 kB
Rss:                   7 kB
Private_Dirty:         1 kB
Anonymous:             5 kB
Swap:                  0 kB
00600000-00700000 rw-p 00000000 00:00 0
Size:               1024 kB
Rss:                 100 kB
Private_Dirty:        30 kB
Anonymous:           100 kB
KSM:                  60 kB
Swap:                 40 kB
00700000-00800000 rw-p 00000000 fe:00 2  /state/memory2
Size:               1024 kB
Private_Dirty:         7 kB
Anonymous:             7 kB
Swap:                  0 kB
`;

test("anonymous pages that nobody else has and swapped ones count, those of the guest's file by themselves", () => {
  expect(countMappings(Buffer.from(MAPPINGS), "/state/memory")).toEqual({
    totalKiB: 153,
    guestKiB: 16,
    sharedKiB: 506,
    mergedKiB: 64,
  });
  expect(countMappings(Buffer.from(MAPPINGS), "/elsewhere")).toEqual({
    totalKiB: 153,
    guestKiB: 0,
    sharedKiB: 0,
    mergedKiB: 64,
  });
  expect(countMappings(Buffer.from(""), "/elsewhere")).toEqual({
    totalKiB: 0,
    guestKiB: 0,
    sharedKiB: 0,
    mergedKiB: 0,
  });
});

test("a process is counted as the kernel adds it up", () => {
  const rollup = readFileSync(`/proc/${process.ppid}/smaps_rollup`, "latin1");
  const dirtyKiB = Number(/^Private_Dirty:\s+(\d+)/m.exec(rollup)?.[1]);
  const bytes = uniqueMemoryOf(process.ppid, "/nowhere");
  expect(bytes?.guestBytes).toBe(0);
  // The parent may be at work meanwhile.
  expect(bytes?.totalBytes).toBeGreaterThan(512 * dirtyKiB);
  expect(uniqueMemoryOf(2 ** 30, "/nowhere")).toBeUndefined();
});
