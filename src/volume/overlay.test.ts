import { expect, test } from "bun:test";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { diskSizeBytes } from "../sys/disk-files.ts";
import { emptyOverlay, makeOverlay } from "./overlay.ts";

const CLUSTER = 65_536;

test("an empty overlay is what the format says (QEMU docs/interop/qcow2.txt)", () => {
  const { pieces, fileBytes } = emptyOverlay(10 * 2 ** 30);
  expect(fileBytes).toBe(4 * CLUSTER);
  expect(pieces.map(({ offset, bytes }) => [offset, bytes.length])).toEqual([
    [0, 104],
    [CLUSTER, 8],
    [2 * CLUSTER, 8],
  ]);
  const header = Buffer.from(pieces[0]?.bytes ?? []);
  expect([...(header.toString("hex").match(/.{1,8}/g) ?? [])]).toEqual([
    ...["514649fb", "00000003"],
    ...["00000000", "00000000", "00000000", "00000010"],
    ...["00000002", "80000000"],
    ...["00000000", "00000014", "00000000", "00030000"],
    ...["00000000", "00010000", "00000001"],
    ...["00000000", "00000000", "00000000"],
    ...["00000000", "00000000", "00000000", "00000000", "00000000", "00000000"],
    ...["00000004", "00000068"],
  ]);
  expect(Buffer.from(pieces[2]?.bytes ?? []).toString("hex")).toBe("0001".repeat(4));
});

test("tables and counts hold disks of any size", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 2 ** 34 }), (sectors) => {
      const { pieces, fileBytes } = emptyOverlay(sectors * 512);
      const header = Buffer.from(pieces[0]?.bytes ?? []);
      const l1Entries = header.readUInt32BE(36);
      expect(l1Entries * 2 ** 29).toBeGreaterThanOrEqual(sectors * 512);
      expect((l1Entries - 1) * 2 ** 29).toBeLessThan(sectors * 512);
      expect(fileBytes).toBeGreaterThanOrEqual(3 * CLUSTER + l1Entries * 8);
      expect((pieces[2]?.bytes.length ?? 0) / 2).toBe(fileBytes / CLUSTER);
    }),
  );
});

test("one on disk takes a few kilobytes, tells its size, and is never made over another file", () => {
  const directory = mkdtempSync(join(tmpdir(), "mayfly-overlay-"));
  const path = join(directory, "a.qcow2");
  makeOverlay(path, 2 ** 40);
  expect(diskSizeBytes(path, "qcow2")).toBe(2 ** 40);
  expect(statSync(path).blocks * 512).toBeLessThan(64 * 1024);
  expect(statSync(path).mode & 0o777).toBe(0o600);
  expect(() => makeOverlay(path, 512)).toThrow(/EEXIST/);
  expect(() => diskSizeBytes("/dev/null", "qcow2")).toThrow(/no qcow2/);
  rmSync(directory, { recursive: true });
});
