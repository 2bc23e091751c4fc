/** Debian's QEMU with the stand-ins as set-up makes them: what it maps, what it does not write, and that VMs are what they are without. */

import { dlopen, FFIType } from "bun:ffi";
import { afterAll, beforeAll, expect, test } from "bun:test";
import { closeSync, openSync, readdirSync, readSync } from "node:fs";
import type { Artifacts } from "../../src/setup/artifacts.ts";
import { standInsStep } from "../../src/setup/stand-ins.ts";
import { openWorkspace } from "../../src/setup/workspace.ts";
import { soon, TestEngine } from "../support/engine.ts";
import { describeVms, hostArtifacts, newDirectory, readProc } from "../support/engine-host.ts";

const PAGE_BYTES = 4096;
/** How a device tree begins (devicetree specification, section 5.2). */
const TREE_MAGIC = Buffer.from([0xd0, 0x0d, 0xfe, 0xed]);
/** QEMU's buffer for it (FDT_MAX_SIZE in system/device_tree.c), which malloc maps by itself, behind 16 bytes of its own. */
const TREE_BUFFER_PAGES = 2 ** 20 / PAGE_BYTES;
const CHUNK_HEADER_BYTES = 16;

/** This host's artifacts with Debian's QEMU first and stand-ins that were made now, in a directory of their own. */
async function artifactsWithStandIns(): Promise<Artifacts> {
  const artifacts = structuredClone(hostArtifacts());
  const [first, ...others] = artifacts.qemu.filter(({ kind }) => kind !== "lean");
  if (first === undefined) throw new Error("Debian's QEMU is not set up");
  artifacts.qemu = [first, ...others];
  const workspace = { ...(await openWorkspace(newDirectory("stand-ins"))), made: { qemu: artifacts.qemu } };
  for (const qemu of artifacts.qemu) delete qemu.libraryPath;
  const step = standInsStep(workspace);
  expect(await step.pending()).toBe("not made for this QEMU yet");
  await step.run({ report: () => undefined, signal: undefined });
  expect(await step.pending()).toBeUndefined();
  return artifacts;
}

/** Private anonymous mappings of a process: addresses of their first and one past their last page. */
function anonymousMappings(pid: number): { start: number; end: number }[] {
  const lines = readProc(`/proc/${pid}/maps`).matchAll(/^([0-9a-f]+)-([0-9a-f]+) rw-p \S+ \S+ 0 +$/gm);
  return [...lines].map(([, start = "", end = ""]) => ({
    start: Number.parseInt(start, 16),
    end: Number.parseInt(end, 16),
  }));
}

/** For each page of a mapping whether it is there (Linux' admin-guide/mm/pagemap.rst: bit 63 present, 62 swapped). */
function residentPages(pid: number, start: number, pages: number): boolean[] {
  const entries = readAt(`/proc/${pid}/pagemap`, (start / PAGE_BYTES) * 8, pages * 8);
  return Array.from({ length: pages }, (_, page) => (entries.readUInt8(page * 8 + 7) & 0xc0) !== 0);
}

function readAt(path: string, position: number, bytes: number): Buffer {
  const fd = openSync(path, "r");
  try {
    const buffer = Buffer.alloc(bytes);
    return buffer.subarray(0, readSync(fd, buffer, 0, bytes, position));
  } finally {
    closeSync(fd);
  }
}

/** How many pages of the buffer of QEMU's device tree are there. */
function residentTreePages(pid: number): number {
  for (const { start, end } of anonymousMappings(pid)) {
    const resident = residentPages(pid, start, (end - start) / PAGE_BYTES);
    for (const [page, isResident] of resident.entries()) {
      const magicAt = start + page * PAGE_BYTES + CHUNK_HEADER_BYTES;
      if (!isResident || !readAt(`/proc/${pid}/mem`, magicAt, TREE_MAGIC.length).equals(TREE_MAGIC)) continue;
      return resident.slice(page, page + TREE_BUFFER_PAGES).filter((isThere) => isThere).length;
    }
  }
  throw new Error(`QEMU ${pid} has no device tree`);
}

describeVms("library stand-ins", () => {
  let artifacts: Artifacts;
  let vms: TestEngine;

  beforeAll(async () => {
    artifacts = await artifactsWithStandIns();
    // Its template is built by a QEMU with stand-ins, too: boot, save and load.
    vms = await TestEngine.open({ artifacts, templates: [] });
  }, 120_000);
  afterAll(() => vms?.[Symbol.asyncDispose]());

  test("take the place of what they are named for, as one file", async () => {
    const { pid } = await vms.start({ name: "maps" });
    const maps = readProc(`/proc/${pid}/maps`);
    const directory = artifacts.qemu[0].libraryPath ?? "";
    const names = readdirSync(directory).filter((name) => name !== "stand-ins.so");
    expect(names).toContain("libgnutls.so.30");
    expect(maps).toContain(`${directory}/stand-ins.so`);
    for (const name of names.filter((library) => !library.startsWith("libfdt."))) {
      expect(maps).not.toContain(`/${name.replace(/\.so\..*/, "")}.`);
    }
    // Of this one they have a function; the others are its own.
    expect(maps).toMatch(/libfdt\S*\.so/);
    await vms.remove("maps");
  });

  test("leave the device tree's buffer alone, which is a megabyte otherwise", async () => {
    const { pid } = await vms.start({ name: "tree" });
    expect(residentTreePages(pid ?? 0)).toBeLessThan(8);
    await vms.remove("tree");
  });

  test("VMs run, and an idle one has at most 15 MB to itself, its guest 1 MB", async () => {
    const { id } = await vms.start({ name: "idle" });
    await Bun.sleep(2000);
    const stats = await vms.engine.statsVm(id, soon());
    expect(stats.uniqueMemoryBytes).toBeLessThanOrEqual(15e6);
    expect(stats.guestUniqueMemoryBytes).toBeLessThanOrEqual(1e6);
    expect(await vms.shell("idle", "head -c 1000000 /dev/urandom | wc -c")).toBe("1000000");
    await vms.remove("idle");
  });

  test("random numbers are there, and differ", () => {
    const { ptr, u64, i32 } = FFIType;
    const library = dlopen(`${artifacts.qemu[0].libraryPath}/stand-ins.so`, {
      gnutls_rnd: { args: [i32, ptr, u64], returns: i32 },
    });
    const [one, other] = [Buffer.alloc(100_000), Buffer.alloc(100_000)];
    for (const bytes of [one, other]) expect(library.symbols.gnutls_rnd(1, bytes, bytes.length)).toBe(0);
    expect(one.equals(other)).toBe(false);
    // Of 100,000 random bytes each value comes about 390 times.
    expect(
      Math.min(...Array.from({ length: 256 }, (_, value) => one.filter((byte) => byte === value).length)),
    ).toBeGreaterThan(250);
  });
});
