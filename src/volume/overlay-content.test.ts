import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { CLUSTER_BYTES, emptyOverlay } from "./overlay.ts";
import { flattenOverlay } from "./overlay-content.ts";

const DISK_CLUSTERS = 24;
const DISK_BYTES = DISK_CLUSTERS * CLUSTER_BYTES;

/** What an overlay has of a cluster: nothing, zeroes with or without a place of their own, or a byte all over. */
type Cluster = "base" | "zero" | "kept zero" | number;

/** An overlay's file, made by the format's words. */
function overlayOf(clusters: readonly Cluster[]): Buffer {
  const { pieces, fileBytes } = emptyOverlay(DISK_BYTES);
  const table = Buffer.alloc(CLUSTER_BYTES);
  const data: Buffer[] = [];
  clusters.forEach((cluster, index) => {
    if (cluster === "base") return;
    const hasPlace = cluster !== "zero";
    const at = hasPlace ? BigInt(fileBytes + CLUSTER_BYTES * (1 + data.length)) : 0n;
    // Bit 63: nobody else refers to it. Bit 0: it reads as zeroes.
    const flags = (hasPlace ? 1n << 63n : 0n) | (typeof cluster === "number" ? 0n : 1n);
    table.writeBigUInt64BE(at | flags, index * 8);
    if (hasPlace) data.push(Buffer.alloc(CLUSTER_BYTES, typeof cluster === "number" ? cluster : 0xee));
  });
  const file = Buffer.alloc(fileBytes);
  for (const { offset, bytes } of pieces) file.set(bytes, offset);
  file.writeBigUInt64BE(BigInt(fileBytes) | (1n << 63n), 3 * CLUSTER_BYTES);
  return Buffer.concat([file, table, ...data]);
}

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "mayfly-overlay-content-"));
});
afterEach(() => rmSync(directory, { recursive: true }));

/** The disk that comes of it. @param base what is below, cluster by cluster. */
async function flattened(overlay: Buffer, base: Buffer): Promise<Buffer> {
  const [overlayPath, basePath, to] = ["overlay", "base", "to"].map((name) => join(directory, name)) as [
    string,
    string,
    string,
  ];
  writeFileSync(overlayPath, overlay);
  writeFileSync(basePath, base);
  writeFileSync(to, "");
  await flattenOverlay(overlayPath, basePath, to);
  return readFileSync(to);
}

const cluster = fc.oneof(fc.constantFrom<Cluster>("base", "zero", "kept zero"), fc.integer({ min: 1, max: 255 }));

test("a disk is what its overlay has, and what lies below where that has nothing", async () => {
  const clusters = fc.array(cluster, { minLength: DISK_CLUSTERS, maxLength: DISK_CLUSTERS });
  await fc.assert(
    fc.asyncProperty(clusters, fc.integer({ min: 1, max: DISK_CLUSTERS }), async (written, baseClusters) => {
      const base = Buffer.concat(
        Array.from({ length: baseClusters }, (_, index) => Buffer.alloc(CLUSTER_BYTES, 100 + index)),
      );
      const wanted = Buffer.alloc(DISK_BYTES);
      base.copy(wanted);
      written.forEach((what, index) => {
        if (what !== "base")
          wanted.fill(typeof what === "number" ? what : 0, index * CLUSTER_BYTES, (index + 1) * CLUSTER_BYTES);
      });
      expect((await flattened(overlayOf(written), base)).equals(wanted)).toBe(true);
    }),
    { numRuns: 30 },
  );
});

test("what neither has is a hole", async () => {
  await flattened(overlayOf(["zero"]), Buffer.alloc(CLUSTER_BYTES, 1));
  const { size, blocks } = statSync(join(directory, "to"));
  expect(size).toBe(DISK_BYTES);
  expect(blocks * 512).toBeLessThan(CLUSTER_BYTES);
});

test.each<[string, (file: Buffer) => void, RegExp]>([
  ["is none", (file) => file.writeUInt32BE(0, 0), /no qcow2 file/],
  ["names a file below it", (file) => file.writeBigUInt64BE(1024n, 8), /features/],
  ["needs a feature that ours have not, as data in another file", (file) => file.writeBigUInt64BE(4n, 72), /features/],
  ["is encrypted", (file) => file.writeUInt32BE(1, 32), /features/],
  ["has other clusters", (file) => file.writeUInt32BE(12, 20), /features/],
  ["has a table that is too small", (file) => file.writeUInt32BE(0, 36), /table of 0 entries/],
  ["has a table that fills memory", (file) => file.writeUInt32BE(2 ** 31, 36), /table of 2147483648 entries/],
  ["ends before its data", (file) => file.writeBigUInt64BE(1n << 40n, 3 * CLUSTER_BYTES), /ends before/],
  ["has compressed clusters", (file) => file.writeBigUInt64BE(1n << 62n, 4 * CLUSTER_BYTES), /compressed/],
  [
    "has clusters behind its disk's end",
    (file) => file.writeBigUInt64BE(1n, 4 * CLUSTER_BYTES + DISK_CLUSTERS * 8),
    /cluster at/,
  ],
])("an overlay that %s is refused", async (_what, damage, why) => {
  const file = overlayOf([7]);
  damage(file);
  await expect(flattened(file, Buffer.alloc(CLUSTER_BYTES))).rejects.toThrow(why);
});
