/**
 * Promotion: a snapshot becomes a template of its own, whose clones share all of its pages. It costs a copy of the base's memory, once; without it
 * each clone copies the snapshot's pages. So it is done in the background as soon as what clones have copied exceeds what the template takes.
 */
import type { Snapshot } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import { promote } from "../snapshot/promote.ts";
import { Deadline } from "../sys/deadline.ts";
import { newId } from "../sys/ids.ts";
import { PAGE_BYTES } from "../sys/memory-file.ts";
import { overwriteFile } from "../sys/store-files.ts";
import { TemplateStore } from "../template/store.ts";
import type { EngineParts } from "./engine.ts";
import { tenantGid } from "./host.ts";
import type { ProgressOptions } from "./interface.ts";
import { groundOf } from "./snapshot-launch.ts";
import type { SnapshotRecords } from "./snapshot-records.ts";

/** Longest that one in the background may take. */
const LIMIT_MS = 600_000;

/** Makes templates of snapshots, each once at a time. */
export class Promotions {
  readonly #copiedBytes = new Map<string, number>();
  readonly #underWay = new Map<string, Promise<Snapshot>>();
  readonly #closing = new AbortController();

  constructor(
    private readonly parts: EngineParts,
    private readonly snapshots: SnapshotRecords,
  ) {}

  /** A clone has copied a snapshot's pages. */
  copied(id: string): void {
    const snapshot = this.snapshots.find(id);
    if (snapshot === undefined || snapshot.promotedTo !== null) return;
    const copiedBytes = (this.#copiedBytes.get(id) ?? 0) + snapshot.pages * PAGE_BYTES;
    this.#copiedBytes.set(id, copiedBytes);
    if (copiedBytes <= this.#costBytes(snapshot)) return;
    this.#copiedBytes.delete(id);
    this.promote(id, { deadline: Deadline.after(LIMIT_MS, this.#closing.signal) }).catch((error: unknown) => {
      const reason = error instanceof Error ? error.message : String(error);
      this.parts.events.emit("snapshot.promotion_failed", id, snapshot.name ?? undefined, { reason });
    });
  }

  /**
   * Makes a template of a snapshot, or finds that there is one.
   * @throws `snapshot_corrupt`, `disk_full`, `template_not_found`, `cancelled`; nothing is left then.
   */
  promote(ref: string, options: ProgressOptions): Promise<Snapshot> {
    const { id } = this.snapshots.get(ref);
    const known = this.#underWay.get(id);
    if (known !== undefined) return options.deadline.race(known, "the promotion of a snapshot");
    const begun = this.#promote(id, options).finally(() => this.#underWay.delete(id));
    this.#underWay.set(id, begun);
    return begun;
  }

  /** Ends what is under way. */
  async close(): Promise<void> {
    this.#closing.abort();
    await Promise.allSettled(this.#underWay.values());
  }

  /** What a template of its own takes on disk. */
  #costBytes({ templateId, sizeBytes }: Snapshot): number {
    const base = this.parts.templates.usable(templateId);
    return (base?.manifest.memory.allocatedBytes ?? Number.POSITIVE_INFINITY) + sizeBytes;
  }

  async #promote(id: string, { onProgress, deadline }: ProgressOptions): Promise<Snapshot> {
    const { host, templates, events } = this.parts;
    const snapshot = await this.snapshots.ready(id);
    const { template: base, isWhole } = groundOf(this.parts, snapshot);
    if (isWhole) return snapshot.document;
    const { fingerprint, fingerprintHash } = snapshot.manifest.base;
    const madeFor = { kind: "promotion", snapshotId: id } as const;
    const made = { id: newId("tpl"), fingerprint, fingerprintHash, gid: tenantGid(host), ownerUid: 0, madeFor };
    onProgress?.("laying the snapshot's pages over a copy of its base");
    const signal = AbortSignal.any([this.#closing.signal, ...(deadline.signal === undefined ? [] : [deadline.signal])]);
    const store = new TemplateStore(host.config.stateDir);
    await store.publish(made, async ({ memoryPath, deviceStatePath }) => {
      await promote(base.memoryPath, snapshot.pagesPath, memoryPath, signal);
      await overwriteFile(deviceStatePath, snapshot.deviceState);
      return undefined;
    });
    await templates.take(made.id);
    if (this.snapshots.find(id) === undefined) {
      await templates.remove(made.id, false);
      throw new MayflyError("snapshot_not_found", `Cannot promote snapshot ${id}: it was removed meanwhile`);
    }
    const promoted = this.snapshots.change(id, { promotedTo: made.id });
    events.emit("snapshot.promoted", id, promoted.name ?? undefined, { templateId: made.id });
    return promoted;
  }
}
