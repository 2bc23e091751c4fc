/** Images of other hosts: taken in as they are, and never in the place of layers that they only claim to be of. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MayflyError } from "../contract/errors.ts";
import { adoptImage, decodeImageManifest, sameImage } from "./adopt.ts";
import { type ImageManifest, imagesDirectory, readAccounts } from "./store.ts";

let stateDir: string;
beforeEach(() => {
  stateDir = mkdtempSync(join(tmpdir(), "mayfly-adopt-"));
});
afterEach(() => rmSync(stateDir, { recursive: true }));

/** As much of an erofs image as is looked at. */
const rootfs = Buffer.alloc(8192);
rootfs.writeUInt32LE(0xe0f5e1e2, 1024);
rootfs[1024 + 12] = 12;
rootfs.writeUInt32LE(2, 1024 + 36);
const sha256 = new Bun.CryptoHasher("sha256").update(rootfs).digest("hex");
const manifest: ImageManifest = {
  ...{ magic: "mayfly-image", version: 1, digest: `sha256:${"a".repeat(64)}`, fstype: "erofs" },
  ...{ sizeBytes: rootfs.length, sha256, entries: 1, contentBytes: 1, createdAt: "2026-01-01T00:00:00.000Z" },
};
const files = (bytes: Uint8Array) => ({
  passwd: Buffer.from("root:x:0:0::/:/bin/sh\n"),
  group: Buffer.from(""),
  fillRootfs: async (path: string) => writeFileSync(path, bytes),
});

test("an image is taken in under the digest of its file system, and found again", async () => {
  expect(await sameImage(stateDir, manifest)).toBeUndefined();
  const image = await adoptImage(stateDir, manifest, files(rootfs));
  expect(image.manifest).toMatchObject({ digest: `sha256:${sha256}`, sha256, sizeBytes: rootfs.length });
  expect(Buffer.compare(readFileSync(image.rootfsPath), rootfs)).toBe(0);
  expect((await readAccounts(stateDir, image.manifest.digest)).passwd).toContain("root:x:0:0");
  expect((await sameImage(stateDir, manifest))?.rootfsPath).toBe(image.rootfsPath);
  const other = { ...manifest, sha256: "b".repeat(64) };
  expect(await sameImage(stateDir, other)).toBeUndefined();
});

test("what is not what its manifest says is refused, and nothing of it stays", async () => {
  const changed = Buffer.from(rootfs);
  changed[5000] = 1;
  const refused = await adoptImage(stateDir, manifest, files(changed)).catch((error: unknown) => error);
  expect(refused).toBeInstanceOf(MayflyError);
  expect(refused).toMatchObject({ code: "image_invalid" });
  expect(readdirSync(imagesDirectory(stateDir))).toEqual([]);
});

test("a manifest is read, or refused", () => {
  const bytes = (value: unknown) => Buffer.from(JSON.stringify(value));
  expect(decodeImageManifest(bytes(manifest))).toEqual(manifest);
  for (const wrong of [{}, { ...manifest, sha256: "../x" }, { ...manifest, digest: "x" }, "x"]) {
    expect(() => decodeImageManifest(bytes(wrong))).toThrow(MayflyError);
  }
});
