/** Snapshots on disk when the process that writes them is killed, and when the disk is full. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { readdirSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { SnapshotId } from "../../src/contract/ids.ts";
import { exportSnapshot, importSnapshot } from "../../src/snapshot/archive.ts";
import { SnapshotStore } from "../../src/snapshot/store.ts";
import { newId } from "../../src/sys/ids.ts";
import { TemplateStore } from "../../src/template/store.ts";
import { newDirectory } from "../support/engine-host.ts";
import { rejection } from "../support/fake-peer.ts";
import {
  archiveBase,
  importHost,
  SNAPSHOT_ID,
  sampleSnapshot,
  sampleTemplate,
  TEMPLATE_ID,
} from "../support/snapshots.ts";

const KILLS = 12;
const MIB = 1 << 20;
const isRoot = process.getuid?.() === 0;
const mayMount = Bun.spawnSync(["unshare", "--mount", "true"]).exitCode === 0;

describe.skipIf(!isRoot)("snapshots on disk (need root, which gives files away)", () => {
  let stateDir: string;
  let store: SnapshotStore;
  let templates: TemplateStore;
  beforeEach(() => {
    stateDir = newDirectory("snapshots");
    [store, templates] = [new SnapshotStore(stateDir), new TemplateStore(stateDir)];
  });
  afterEach(() => rmSync(stateDir, { recursive: true, force: true }));

  test("killed at any moment, a publisher leaves what it has told of, whole, and nothing that restores to garbage", async () => {
    await sampleTemplate(templates);
    const [archives, otherDir] = [newDirectory("archives"), newDirectory("other")];
    const told = new Map<string, Set<string>>();
    for (let kill = 0; kill < KILLS; kill++) {
      for (const [id, what] of await workUntilKilled([stateDir, archives, otherDir], 20 + kill * 25)) {
        told.set(id, new Set([...(told.get(id) ?? []), ...what]));
      }
    }
    const [other, otherTemplates] = [new SnapshotStore(otherDir), new TemplateStore(otherDir)];
    for (const each of [store, other]) {
      await each.sweep();
      const { snapshots, corrupt } = await each.list();
      expect(corrupt).toEqual([]);
      for (const { id } of snapshots) expect(await each.verify(id)).toEqual([]);
      const has = new Set(snapshots.map(({ id }) => id));
      for (const [id, what] of told) {
        if (each === store) expect(has.has(id)).toBe(what.has("published"));
        else if (what.has("removed")) expect(has.has(id)).toBe(false);
      }
    }
    await otherTemplates.sweep();
    for (const id of await otherTemplates.list()) expect(await otherTemplates.verify(id)).toEqual([]);
    // Archives are whole or not there.
    const names = readdirSync(archives);
    expect(names.every((name) => /^snap_\w+\.tar$/.test(name))).toBe(true);
    expect(names.length).toBeGreaterThanOrEqual([...told.values()].filter((what) => what.has("exported")).length);
    const host = importHost(templates);
    for (const name of names.slice(-8)) {
      const renamed: SnapshotId = newId("snap");
      await importSnapshot(store, join(archives, name), {
        ...host,
        accept: async () => ({ id: renamed, gid: 0 }),
      });
      await store.remove(renamed);
    }
    for (const directory of [archives, otherDir]) rmSync(directory, { recursive: true });
  }, 120_000);

  test.skipIf(!mayMount)(
    "on a full disk neither a snapshot nor an archive is left, and with space it works again",
    async () => {
      const base = await sampleTemplate(templates);
      const full = newDirectory("full");
      const mounted = Bun.spawnSync(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", full]);
      expect(mounted.exitCode).toBe(0);
      try {
        const small = new SnapshotStore(full);
        const giveBack = fill(full, 1.5 * MIB);
        expect((await rejection(sampleSnapshot(small, base))).code).toBe("disk_full");
        expect(readdirSync(join(full, "snapshots"))).toEqual([]);
        await sampleSnapshot(store, base);
        const archive = join(full, "archive.tar");
        const files = await archiveBase(templates, TEMPLATE_ID);
        expect((await rejection(exportSnapshot(store, SNAPSHOT_ID, archive, { base: files }))).code).toBe("disk_full");
        expect(readdirSync(full).sort()).toEqual(["filler", "snapshots"]);
        giveBack();
        await exportSnapshot(store, SNAPSHOT_ID, archive, { base: files });
        const again = fill(full, 2 * MIB);
        const host = importHost(new TemplateStore(full));
        expect((await rejection(importSnapshot(small, archive, host))).code).toBe("disk_full");
        expect(["snapshots", "templates"].flatMap((name) => readdirSync(join(full, name)))).toEqual([]);
        again();
        await importSnapshot(small, archive, host);
        expect(await small.verify(SNAPSHOT_ID)).toEqual([]);
      } finally {
        Bun.spawnSync(["umount", "-l", full]);
        rmSync(full, { recursive: true });
      }
    },
  );
});

/** Lets a process work for so many milliseconds after its first line. @returns what it has told of each snapshot. */
async function workUntilKilled(directories: readonly string[], afterMs: number): Promise<Map<string, Set<string>>> {
  const worker = join(import.meta.dir, "../support/snapshot-worker.ts");
  const child = Bun.spawn([process.execPath, worker, ...directories], { stdout: "pipe", stderr: "inherit" });
  let text = "";
  for await (const chunk of child.stdout) {
    if (text === "") setTimeout(() => child.kill("SIGKILL"), afterMs);
    text += Buffer.from(chunk).toString();
  }
  await child.exited;
  expect(child.signalCode).toBe("SIGKILL");
  const told = new Map<string, Set<string>>();
  for (const line of text.split("\n").slice(0, -1)) {
    const [what = "", id = ""] = line.split(" ");
    told.set(id, (told.get(id) ?? new Set()).add(what));
  }
  return told;
}

/** Takes all the space but so many bytes. @returns a function that gives it back. */
function fill(directory: string, leaveBytes: number): () => void {
  const path = join(directory, "filler");
  const { bavail, bsize } = statfsSync(directory);
  writeFileSync(path, Buffer.alloc(Math.max(0, bavail * bsize - leaveBytes)));
  return () => rmSync(path);
}
