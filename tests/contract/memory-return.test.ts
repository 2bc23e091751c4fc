/** Giving pages back, in a process that has mapped a file as a QEMU does: what can be read there is the same before and after. */
import { expect, test } from "bun:test";
import { MemoryReturn } from "../../src/sys/memory-return.ts";
import { RUN_WORDS } from "../../src/sys/page-set.ts";
import { copiedPages } from "../../src/sys/pagemap.ts";
import { identifyProcess } from "../../src/sys/process.ts";
import { describeVms, hostArtifacts, newDirectory } from "../support/engine-host.ts";
import { rejection } from "../support/fake-peer.ts";
import { memoryFile, PAGE, PrivateMapping } from "../support/private-mapping.ts";

const PAGES = 4096;

describeVms("memory of a process that is given back", () => {
  const copied = ({ pid, mapping }: PrivateMapping) => {
    const runs = copiedPages(pid, mapping.start, mapping.lengthBytes);
    return [...runs.keys()].filter((word) => word % RUN_WORDS === 1).reduce((sum, word) => sum + (runs[word] ?? 0), 0);
  };
  const identity = (pid: number) => identifyProcess(pid) ?? { pid, startTicks: 0, bootId: "" };
  const program = (process: PrivateMapping) =>
    new MemoryReturn(hostArtifacts().launcher.path, identity(process.pid), process.mapping, process.path);

  test("pages that equal the file's go, all others stay, and every byte is what it was", async () => {
    const path = `${newDirectory("mapping")}/memory`;
    // Every third page of the file has something, the others are holes.
    const filled = new Map(Array.from({ length: PAGES }, (_, page) => [page, page % 3 === 0 ? (page % 250) + 1 : 0]));
    for (const [page, byte] of filled) if (byte === 0) filled.delete(page);
    await memoryFile(path, PAGES, filled);
    using process = await PrivateMapping.of(path, PAGES * PAGE);
    // Written: what is there anyway, something else, or nothing at all.
    let equal = 0;
    for (let page = 0; page < PAGES; page += 1) {
      const own = filled.get(page) ?? 0;
      const isEqual = page % 5 < 3;
      if (page % 7 === 0) continue;
      await process.tell({ do: "fill", page, pages: 1, byte: isEqual ? own : 255 });
      if (isEqual) equal += 1;
    }
    const before = process.contents();
    const copiedBefore = copied(process);
    using giver = program(process);
    let given = 0;
    for (let found = await giver.look(); found > 0; found = await giver.look()) given += await giver.discard();
    expect(given).toBe(equal * PAGE);
    expect(copied(process)).toBe(copiedBefore - equal);
    expect(process.contents().equals(before)).toBe(true);
    // It goes on, and writes copies as before.
    await process.tell({ do: "fill", page: 1, pages: 1, byte: 17 });
    expect(process.contents()[PAGE]).toBe(17);
  });

  test("a page that has changed since it was looked at stays", async () => {
    const path = `${newDirectory("mapping")}/memory`;
    await memoryFile(path, 16, new Map());
    using process = await PrivateMapping.of(path, 16 * PAGE);
    await process.tell({ do: "fill", page: 3, pages: 1, byte: 0 });
    await process.tell({ do: "fill", page: 4, pages: 1, byte: 0 });
    using giver = program(process);
    expect(await giver.look()).toBe(2 * PAGE);
    await process.tell({ do: "fill", page: 3, pages: 1, byte: 9 });
    expect(await giver.discard()).toBe(PAGE);
    expect(process.contents()[3 * PAGE]).toBe(9);
  });

  test("another process under the same number is left alone", async () => {
    const path = `${newDirectory("mapping")}/memory`;
    await memoryFile(path, 16, new Map());
    using process = await PrivateMapping.of(path, 16 * PAGE);
    const other = { ...identity(process.pid), startTicks: 1 };
    using giver = new MemoryReturn(hostArtifacts().launcher.path, other, process.mapping, process.path);
    expect(await rejection(giver.look())).toMatchObject({ code: "not_capturable" });
  });
});
