/** The snapshots of a state directory as they are known: their documents, what their manifests say of their VMs, and who needs them. */
import { z } from "zod";
import type { Snapshot, Vm } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import type { LoadedSnapshot, SnapshotStore } from "../snapshot/store.ts";
import type { GuestObject } from "./capture.ts";
import type { CapturedVm } from "./captured-vm.ts";
import type { Events } from "./events.ts";
import type { Holding } from "./holdings.ts";
import { bigToText, type HeldRecord, type Records, withBigNumbers } from "./records.ts";
import { resolveRef } from "./refs.ts";

/** What a manifest says of its VM. */
export interface SnapshotVm {
  captured: CapturedVm;
  held: HeldRecord;
  main: (GuestObject & { pid: number }) | null;
  others: GuestObject[];
}

/** A snapshot that was read to go on from. */
export interface ReadySnapshot extends LoadedSnapshot {
  document: Snapshot;
  vm: SnapshotVm;
}

/** Enough of it to know that it is one of ours: manifests have a checksum. */
const SnapshotVmSchema = z.looseObject({
  captured: z.looseObject({ vm: z.looseObject({ id: z.string(), name: z.string() }) }),
  held: z.looseObject({ disks: z.record(z.string(), z.unknown()) }),
  main: z.looseObject({ object: z.int() }).nullable(),
  others: z.array(z.looseObject({ object: z.int() })),
});

/** As it goes into a manifest, which has no big numbers. */
export function encodeSnapshotVm(vm: SnapshotVm): unknown {
  return JSON.parse(JSON.stringify(vm, bigToText));
}

/** @throws `snapshot_corrupt` for what is none. */
export function decodeSnapshotVm(id: string, value: unknown): SnapshotVm {
  const parsed = SnapshotVmSchema.safeParse(value);
  if (!parsed.success) {
    const problems = parsed.error.issues.map((issue) => `${issue.path.join(".")}: ${issue.message}`);
    throw new MayflyError("snapshot_corrupt", `Cannot use snapshot ${id}: its VM is not described: ${problems[0]}`, {
      details: { problems },
    });
  }
  const vm = value as SnapshotVm;
  const { again } = vm.captured;
  return { ...vm, captured: { ...vm.captured, again: again == null ? null : withBigNumbers(again) } };
}

/** All snapshots that can be named. */
export class SnapshotRecords {
  readonly #known = new Map<string, Snapshot>();
  readonly #holdings = new Map<string, Holding>();
  /** Paths of the root disks, by snapshot. */
  readonly #roots = new Map<string, string>();
  /** Ids of those that are being imported, whose bases are here before them. */
  readonly expected = new Set<string>();
  /** Called when one has gone. */
  onRemoved: (id: string) => Promise<void> = async () => undefined;
  /** Claims disks that a snapshot lies over, so that they stay. */
  hold: (snapshot: Snapshot, disks: HeldRecord["disks"]) => Holding | undefined = () => undefined;

  constructor(
    readonly store: SnapshotStore,
    private readonly records: Pick<Records, "snapshots" | "putSnapshot" | "removeSnapshot">,
    private readonly events: Events,
  ) {}

  /**
   * Reads what is there, once the VMs' records have been read. What is on disk and was never told of goes, and so does what nobody waits in any
   * more; what was told of and is gone is told.
   */
  async load(waitedIn: (id: string) => boolean): Promise<void> {
    await this.store.sweep();
    const { snapshots, corrupt } = await this.store.list();
    const onDisk = new Map(snapshots.map((manifest) => [manifest.id, manifest]));
    const damaged = new Map(corrupt.map(({ id, error }) => [id, error]));
    for (const document of this.records.snapshots()) {
      const manifest = onDisk.get(document.id);
      const error = damaged.get(document.id);
      onDisk.delete(document.id);
      damaged.delete(document.id);
      const isOver = document.kind === "suspended" && !waitedIn(document.id);
      if ((manifest === undefined && error === undefined) || isOver) {
        if (!isOver) this.events.emit("snapshot.lost", document.id, document.name ?? undefined);
        await this.store.remove(document.id);
        this.records.removeSnapshot(document.id);
        continue;
      }
      this.#known.set(document.id, document);
      if (error !== undefined) this.events.emit("snapshot.damaged", document.id, undefined, { reason: error.message });
      else if (manifest !== undefined) this.#hold(document, manifest.vm);
    }
    for (const id of [...onDisk.keys(), ...damaged.keys()]) await this.store.remove(id);
  }

  #hold(document: Snapshot, vm: unknown): void {
    try {
      const { disks } = decodeSnapshotVm(document.id, vm).held;
      if (disks.root !== undefined) this.#roots.set(document.id, disks.root.path);
      const holding = this.hold(document, disks);
      if (holding !== undefined) this.#holdings.set(document.id, holding);
    } catch (error) {
      this.events.emit("snapshot.damaged", document.id, undefined, { reason: String(error) });
    }
  }

  list(): Snapshot[] {
    return [...this.#known.values()];
  }

  /** @throws `snapshot_not_found`, `id_ambiguous`. */
  get(ref: string): Snapshot {
    return resolveRef(this.list(), ref, "snapshot");
  }

  find(id: string): Snapshot | undefined {
    return this.#known.get(id);
  }

  /** Names of those whose pages lie over a template's. */
  onTemplate(templateId: string): string[] {
    return this.list().flatMap((one) => (one.templateId === templateId ? [`snapshot ${one.name ?? one.id}`] : []));
  }

  /** Names of those whose root disk is the contents of an image. */
  onImage(digest: string): string[] {
    const part = `/${digest.replace(":", "/")}/`;
    return this.list().flatMap(({ id, name }) =>
      this.#roots.get(id)?.includes(part) ? [`snapshot ${name ?? id}`] : [],
    );
  }

  /** @throws `name_in_use`. */
  requireFree(name: string | undefined): void {
    const holder = name === undefined ? undefined : this.list().find((snapshot) => snapshot.name === name);
    if (holder === undefined) return;
    throw new MayflyError("name_in_use", `Cannot name a snapshot ${name}: ${holder.id} has that name`);
  }

  /** Records one that is on disk: from now on it exists. @throws `disk_full`, `name_in_use`; it is gone then. */
  async add(document: Snapshot, vm: SnapshotVm): Promise<void> {
    try {
      this.requireFree(document.name ?? undefined);
      this.records.putSnapshot(document);
    } catch (error) {
      await this.store.remove(document.id);
      throw error;
    }
    this.#known.set(document.id, document);
    this.#hold(document, vm);
  }

  /** Records a change of one. */
  change(id: string, change: Partial<Snapshot>): Snapshot {
    const document = { ...this.get(id), ...change };
    this.records.putSnapshot(document);
    this.#known.set(id, document);
    return document;
  }

  /** Reads one to go on from it. @throws `snapshot_corrupt`. */
  async ready(id: string): Promise<ReadySnapshot> {
    const document = this.get(id);
    const loaded = await this.store.load(document.id);
    return { ...loaded, document, vm: decodeSnapshotVm(document.id, loaded.manifest.vm) };
  }

  /** The VM that waited in one runs again: it goes, unless somebody else needs it. */
  async release(id: string, vms: readonly Vm[]): Promise<void> {
    if (usersOf(id, vms).length === 0) await this.remove(id);
    else this.change(id, { kind: "checkpoint" });
  }

  /** Removes one, whoever needs it. Forgotten first: what is left of it then goes at the next start. */
  async remove(id: string): Promise<void> {
    const document = this.#known.get(id);
    this.#known.delete(id);
    this.records.removeSnapshot(id);
    await this.#holdings.get(id)?.release("ended");
    this.#holdings.delete(id);
    this.#roots.delete(id);
    await this.store.remove(id);
    this.events.emit("snapshot.removed", id, document?.name ?? undefined);
    await this.onRemoved(id);
  }
}

/** VMs that need a snapshot, in words: those that wait in it, and those that would be started from it again. */
export function usersOf(id: string, vms: readonly Vm[]): string[] {
  return vms.flatMap(({ name, suspendedIn, origin, restart, finishedAt }) => {
    if (suspendedIn === id) return [`VM ${name}, which is suspended in it`];
    const returns = origin?.id === id && finishedAt === null && restart.name !== "no";
    return returns ? [`VM ${name}, which its restart policy starts from it`] : [];
  });
}

/** Of a VM's disks those that others have, too: what lies below scratch disks and directories. */
export function sharedDisks({ root: _root, ...disks }: HeldRecord["disks"]): HeldRecord["disks"] {
  const shared = Object.entries(disks).filter(([, disk]) => disk.basePath !== undefined && disk.ownsBase !== true);
  return Object.fromEntries(shared);
}
