/** Snapshots and templates for tests: small memories, made without a QEMU. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { SnapshotId, TemplateId } from "../../src/contract/ids.ts";
import type { Fingerprint } from "../../src/contract/machine.ts";
import type { ArchiveBase, ImportHost } from "../../src/snapshot/archive.ts";
import type { SnapshotBase, SnapshotManifest } from "../../src/snapshot/manifest.ts";
import type { SnapshotStore } from "../../src/snapshot/store.ts";
import { AnonymousMemory } from "../../src/sys/anonymous-memory.ts";
import { PageSet, RunList, ZERO_SOURCE } from "../../src/sys/page-set.ts";
import type { TemplateStore } from "../../src/template/store.ts";

const PAGE = 4096;
export const MEMORY_MIB = 8;
const DATA_PAGES = 300;
export const sampleFingerprint: Fingerprint = {
  qemuVersion: "10.0.2",
  qemuBinary: "/qemu 1 2",
  accelerator: "tcg",
  cpuModel: "max",
  hostCpu: "",
  machineProfile: "p",
  memoryMiB: MEMORY_MIB,
  vcpus: 1,
  kernelSha256: "a".repeat(64),
  initramfsSha256: "b".repeat(64),
  kernelCommandLine: "c",
};
export const TEMPLATE_ID: TemplateId = `tpl_${"a".repeat(26)}`;
export const SNAPSHOT_ID: SnapshotId = `snap_${"b".repeat(26)}`;

/** A template of which the first pages have data. */
export async function sampleTemplate(templates: TemplateStore, seed = 0): Promise<SnapshotBase> {
  const ids = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
  const parts = {
    id: TEMPLATE_ID,
    fingerprint: sampleFingerprint,
    fingerprintHash: "f".repeat(64),
    gid: ids.gid,
    ownerUid: ids.uid,
  };
  const { fingerprint, fingerprintHash, memory, id } = await templates.publish(
    parts,
    async ({ memoryPath, deviceStatePath }) => {
      const bytes = Buffer.alloc(MEMORY_MIB << 20);
      for (let page = 0; page < DATA_PAGES; page++)
        bytes.fill(((page + seed) % 250) + 1, page * PAGE, (page + 1) * PAGE);
      writeFileSync(memoryPath, bytes);
      writeFileSync(deviceStatePath, "the base's device state");
      return undefined;
    },
  );
  return { id, fingerprint, fingerprintHash, memory: { sizeBytes: memory.sizeBytes, sha256: memory.sha256 } };
}

/** Three runs of pages, one of them zero, with bytes that `seed` chooses. */
export function samplePages(seed = 1): PageSet {
  const list = new RunList();
  list.add(3, 40, 0);
  list.add(100, 7, ZERO_SOURCE);
  list.add(500, 600, 40);
  const memory = new AnonymousMemory(640 * PAGE);
  const words = new Uint32Array(memory.view(0, 640 * PAGE).buffer);
  let state = seed;
  for (let at = 0; at < words.length; at++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    words[at] = state;
  }
  return new PageSet(MEMORY_MIB << 20, list.finish(), memory, true);
}

/** Publishes a snapshot over a base, with disks of those slots, 1 MiB each and mostly holes. */
export async function sampleSnapshot(
  store: SnapshotStore,
  base: SnapshotBase,
  { id = SNAPSHOT_ID, disks = [], seed = 1 }: { id?: SnapshotId; disks?: readonly string[]; seed?: number } = {},
): Promise<SnapshotManifest> {
  const gid = process.getgid?.() ?? 0;
  return store.publish({ id, gid }, async (workspace) => {
    using pages = samplePages(seed);
    for (const slot of disks) {
      const disk = Buffer.alloc(1 << 20);
      disk.write(`disk ${slot} of ${id}`, 300_000);
      writeFileSync(workspace.diskPath(slot, "raw"), disk);
    }
    return {
      kind: "checkpoint",
      base,
      pages: await workspace.writePages(pages),
      deviceState: Buffer.from("the VM's device state"),
      disks: disks.map((slot) => ({ slot, format: "raw" })),
      vm: { name: "one", environment: ["A=1"] },
    };
  });
}

/** A host that takes what fits its templates. */
export function importHost(templates: TemplateStore): ImportHost {
  const gid = process.getgid?.() ?? 0;
  return {
    accept: async (manifest) => ({ id: manifest.id as SnapshotId, gid }),
    takeImage: async ({ vm }) => vm,
    hasBase: async ({ id, memory }) =>
      templates.load(id).then(
        (loaded) => loaded.manifest.memory.sha256 === memory.sha256,
        () => false,
      ),
    adoptBase: (id, files) => templates.adopt(id, files, { gid, snapshotId: SNAPSHOT_ID }),
    removeBase: (id) => templates.remove(id),
  };
}

/** A template's files for an archive. */
export async function archiveBase(templates: TemplateStore, id: string): Promise<ArchiveBase> {
  const { deviceState, memoryPath } = await templates.load(id);
  return { manifest: readFileSync(join(templates.directory(id), "manifest.json")), deviceState, memoryPath };
}
