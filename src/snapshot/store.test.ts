import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SNAPSHOT_ID as ID, samplePages, sampleSnapshot, sampleTemplate } from "../../tests/support/snapshots.ts";
import { MayflyError } from "../contract/errors.ts";
import { TemplateStore } from "../template/store.ts";
import { decodeSnapshotManifest, encodeSnapshotManifest, type SnapshotBase } from "./manifest.ts";
import { SnapshotStore } from "./store.ts";

async function failure(promise: Promise<unknown>): Promise<MayflyError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof MayflyError) return error;
  throw new Error(`expected a MayflyError, got ${error}`);
}

const isRoot = process.getuid?.() === 0;
describe.skipIf(!isRoot)("the store of snapshots (needs root, which gives files away)", () => {
  let stateDir: string;
  let store: SnapshotStore;
  let base: SnapshotBase;
  const inside = (name = "") => join(stateDir, "snapshots", name);
  beforeEach(async () => {
    stateDir = mkdtempSync(join(tmpdir(), "mayfly-snapshots-"));
    store = new SnapshotStore(stateDir);
    base = await sampleTemplate(new TemplateStore(stateDir));
  });
  afterEach(() => rmSync(stateDir, { recursive: true, force: true }));

  test("publishes a snapshot whole and sealed, and reads it again", async () => {
    const manifest = await sampleSnapshot(store, base, { disks: ["scratch", "volume-0"] });
    expect(await store.list()).toEqual({ snapshots: [manifest], corrupt: [] });
    expect(manifest.pages).toMatchObject({ count: 647, zeroCount: 7 });
    const loaded = await store.load(ID);
    expect(loaded.manifest).toEqual(manifest);
    expect(Buffer.from(loaded.deviceState).toString()).toBe("the VM's device state");
    expect(loaded.disks.map(({ path }) => readFileSync(path).subarray(300_000, 300_004).toString())).toEqual([
      "disk",
      "disk",
    ]);
    expect(await store.verify(ID)).toEqual([]);
    const modes = Object.fromEntries(
      [".", "manifest.json", "pages", "device-state", "disks", "disks/scratch.raw"].map((name) => [
        name,
        (statSync(inside(`${ID}/${name}`)).mode & 0o777).toString(8),
      ]),
    );
    // QEMUs of the group get to the disks, and to nothing else.
    expect(modes).toEqual({
      ".": "711",
      "manifest.json": "400",
      pages: "400",
      "device-state": "400",
      disks: "711",
      "disks/scratch.raw": "440",
    });
    expect(await store.sizeBytes(ID)).toBeGreaterThan(640 * 4096);
  });

  test("lets nobody else into one without disks", async () => {
    await sampleSnapshot(store, base);
    expect(statSync(inside(ID)).mode & 0o777).toBe(0o700);
  });

  test("leaves nothing of one that fails, and shows nothing before it is complete", async () => {
    const broken = store.publish({ id: ID, gid: 0 }, async (workspace) => {
      using pages = samplePages();
      await workspace.writePages(pages);
      expect((await store.list()).snapshots).toEqual([]);
      expect((await failure(store.load(ID))).code).toBe("snapshot_not_found");
      throw new MayflyError("qemu_exited", "no");
    });
    expect((await failure(broken)).code).toBe("qemu_exited");
    expect(readdirSync(inside())).toEqual([]);
  });

  test("does not replace one that is there", async () => {
    const manifest = await sampleSnapshot(store, base);
    expect((await failure(sampleSnapshot(store, base))).code).toBe("name_in_use");
    expect(await store.list()).toEqual({ snapshots: [manifest], corrupt: [] });
  });

  test("says what is wrong with a snapshot, lists the others, and finds any changed byte", async () => {
    await sampleSnapshot(store, base, { disks: ["scratch"] });
    const other = await sampleSnapshot(store, base, { id: `snap_${"c".repeat(26)}` });
    const changes: [name: string, change: (path: string) => void, atLoad: boolean, message: string][] = [
      ["manifest.json", (path) => writeFileSync(path, "{}"), true, "has no checksum"],
      ["manifest.json", (path) => rmSync(path), true, "manifest.json is missing"],
      ["device-state", (path) => writeFileSync(path, "the VM's device stat!"), true, "checksum"],
      ["device-state", (path) => writeFileSync(path, "short"), true, "5 bytes, manifest requires 21"],
      ["pages", (path) => truncateSync(path, 8192), true, "8192 bytes"],
      ["pages", (path) => flip(path, 2_000_000), false, "pages have checksum"],
      ["disks/scratch.raw", (path) => flip(path, 300_001), false, "disk scratch.raw has checksum"],
      ["disks/scratch.raw", (path) => rmSync(path), true, "is missing"],
    ];
    for (const [name, change, atLoad, message] of changes) {
      const path = inside(`${ID}/${name}`);
      const kept = readFileSync(path);
      chmodSync(path, 0o600);
      change(path);
      expect((await store.verify(ID)).join("; ")).toContain(message);
      if (atLoad) expect(await failure(store.load(ID))).toMatchObject({ code: "snapshot_corrupt" });
      else expect((await store.load(ID)).manifest.id).toBe(ID);
      const { snapshots, corrupt } = await store.list();
      expect(snapshots.map(({ id }) => id)).toContain(other.id);
      expect(corrupt.map(({ id }) => id)).toEqual(name === "manifest.json" ? [ID] : []);
      writeFileSync(path, kept);
    }
    expect(await store.verify(ID)).toEqual([]);
  });

  test("does not take one snapshot for another", async () => {
    await sampleSnapshot(store, base);
    const other = `snap_${"d".repeat(26)}`;
    renameSync(inside(ID), inside(other));
    expect((await failure(store.load(other))).message).toContain(`belongs to ${ID}`);
  });

  test("compares snapshots with their base and with each other", async () => {
    await sampleSnapshot(store, base);
    const second = await sampleSnapshot(store, base, { id: `snap_${"c".repeat(26)}`, seed: 2 });
    expect(await store.diff(ID, undefined)).toEqual({
      from: null,
      to: ID,
      pages: 647,
      ranges: [
        { startBytes: 3 * 4096, lengthBytes: 40 * 4096 },
        { startBytes: 100 * 4096, lengthBytes: 7 * 4096 },
        { startBytes: 500 * 4096, lengthBytes: 600 * 4096 },
      ],
      truncated: false,
    });
    expect(await store.diff(ID, ID)).toMatchObject({ pages: 0, ranges: [] });
    expect(await store.diff(ID, second.id)).toMatchObject({ pages: 640 });
    const foreign = { ...base, memory: { ...base.memory, sha256: "0".repeat(64) } };
    const third = await sampleSnapshot(store, foreign, { id: `snap_${"d".repeat(26)}` });
    expect((await failure(store.diff(ID, third.id))).code).toBe("invalid_argument");
  });

  test("removes whole snapshots, and sweeps up after what was interrupted", async () => {
    await sampleSnapshot(store, base);
    await store.remove(ID);
    await store.remove(ID);
    expect(readdirSync(inside())).toEqual([]);
    for (const name of [`.unfinished-${ID}-1`, `.unfinished-removed-${ID}`]) mkdirSync(inside(name));
    await sampleSnapshot(store, base);
    expect((await store.sweep()).length).toBe(2);
    expect(readdirSync(inside())).toEqual([ID]);
  });

  test("a manifest that does not fit itself is refused, whatever its checksum", async () => {
    const manifest = await sampleSnapshot(store, base, { disks: ["scratch", "root"] });
    const [disk] = manifest.disks;
    if (disk === undefined) throw new Error("no disk");
    const wrong = [
      { ...manifest, base: { ...base, memory: { ...base.memory, sizeBytes: 4096 } } },
      { ...manifest, disks: [disk, disk] },
      { ...manifest, disks: [{ ...disk, file: "root.raw" }] },
      { ...manifest, disks: [{ ...disk, file: "../../x.raw" }] },
      { ...manifest, id: "snap_x" },
      { ...manifest, deviceState: { ...manifest.deviceState, sizeBytes: 2 ** 30 } },
    ];
    expect(decodeSnapshotManifest(Buffer.from(encodeSnapshotManifest(manifest)), "here")).toEqual(manifest);
    for (const each of wrong) {
      const text = encodeSnapshotManifest(each);
      expect(() => decodeSnapshotManifest(Buffer.from(text), "here")).toThrow("Cannot use the manifest here");
    }
    expect(() => encodeSnapshotManifest({ ...manifest, vm: "x".repeat(1 << 20) })).toThrow("at most");
  });
});

function flip(path: string, at: number): void {
  const bytes = readFileSync(path);
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  writeFileSync(path, bytes);
}
