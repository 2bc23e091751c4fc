/**
 * Publishes, exports, imports and removes snapshots until it is killed, and says what it has done: one line each. Arguments: state directory,
 * directory of archives, state directory to import into.
 */
import { join } from "node:path";
import type { SnapshotId } from "../../src/contract/ids.ts";
import { exportSnapshot, importSnapshot } from "../../src/snapshot/archive.ts";
import { SnapshotStore } from "../../src/snapshot/store.ts";
import { newId } from "../../src/sys/ids.ts";
import { TemplateStore } from "../../src/template/store.ts";
import { archiveBase, importHost, sampleSnapshot, TEMPLATE_ID } from "./snapshots.ts";

const [stateDir = "", archives = "", otherDir = ""] = process.argv.slice(2);
const [store, templates] = [new SnapshotStore(stateDir), new TemplateStore(stateDir)];
const [otherStore, otherTemplates] = [new SnapshotStore(otherDir), new TemplateStore(otherDir)];
const base = await archiveBase(templates, TEMPLATE_ID);
const { fingerprint, fingerprintHash, memory } = (await templates.load(TEMPLATE_ID)).manifest;
const { sizeBytes, sha256 } = memory;
const say = (what: string, id: string) => process.stdout.write(`${what} ${id}\n`);

for (let round = 1; ; round++) {
  const id: SnapshotId = newId("snap");
  const over = { id: TEMPLATE_ID, fingerprint, fingerprintHash, memory: { sizeBytes, sha256 } };
  await sampleSnapshot(store, over, { id, disks: ["scratch"], seed: round });
  say("published", id);
  await exportSnapshot(store, id, join(archives, `${id}.tar`), { base });
  say("exported", id);
  await importSnapshot(otherStore, join(archives, `${id}.tar`), importHost(otherTemplates));
  say("imported", id);
  if (round % 2 === 0) {
    await otherStore.remove(id);
    say("removed", id);
  }
}
