/** Checkpoints, forks and lineage of one state directory; see `snapshot-interface.ts`. */
import type {
  CheckpointRequest,
  CreateVmRequest,
  ExportSnapshotRequest,
  ForkRequest,
  ForkResult,
  ImportSnapshotRequest,
  PruneResult,
  PruneSnapshotsRequest,
  Snapshot,
  SnapshotDiff,
  TreeNode,
  VerifyResult,
  Vm,
} from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import type { Deadline } from "../sys/deadline.ts";
import { checkpointVm } from "./checkpoint.ts";
import type { EngineParts } from "./engine.ts";
import { forkVm } from "./fork.ts";
import type { Gate } from "./gate.ts";
import type { OutputSink, ProgressOptions } from "./interface.ts";
import { drawTree } from "./lineage.ts";
import { Promotions } from "./promotion.ts";
import { Returns } from "./restore.ts";
import { type MemoryShare, SharedMemory } from "./shared-memory.ts";
import { createFromSnapshot, relaunchFromSnapshot } from "./snapshot-clone.ts";
import { changedFiles } from "./snapshot-files.ts";
import type { SnapshotEngine } from "./snapshot-interface.ts";
import { exportTo, importFrom } from "./snapshot-moves.ts";
import { type SnapshotRecords, usersOf } from "./snapshot-records.ts";

/** The {@link SnapshotEngine} over QEMU processes of this host. */
export class LocalSnapshots implements SnapshotEngine {
  readonly #records: SnapshotRecords;
  readonly #returns: Returns;
  readonly #promotions: Promotions;
  readonly #memory: SharedMemory;

  constructor(
    private readonly parts: EngineParts,
    private readonly gate: Gate,
  ) {
    this.#records = parts.snapshots;
    this.#returns = new Returns(parts, gate, this.#records);
    this.#promotions = new Promotions(parts, this.#records);
    this.#memory = new SharedMemory(parts.vms, parts.templates, this.#records.store);
    parts.vms.onDropped = (id) => this.#records.release(id, parts.vms.list());
    parts.vms.returning = (id) => this.#returns.returning(id);
    for (const [id, holdings] of parts.vms.parked) holdings.park(() => this.#returns.wake(id));
  }

  checkpoint = (ref: string, request: CheckpointRequest, deadline: Deadline): Promise<Snapshot> => {
    const take = () => checkpointVm(this.parts, this.#records, ref, request, (id) => this.#returns.wake(id), deadline);
    // One that is to be suspended and is already waits in what was asked for.
    const waitsIn = () => this.#records.find(this.parts.vms.get(ref).suspendedIn ?? "");
    const isAnyName = request.stop === true && request.name === undefined;
    return this.#whileRunning(ref, take, isAnyName ? waitsIn : () => undefined, deadline);
  };

  resume = (ref: string, deadline: Deadline): Promise<Vm> => this.#returns.resume(ref, deadline);
  restore = (ref: string, deadline: Deadline): Promise<Vm> => this.#returns.restore(ref, deadline);

  fork = (ref: string, request: ForkRequest, deadline: Deadline): Promise<ForkResult> =>
    this.#whileRunning(
      ref,
      () => forkVm(this.parts, this.gate, ref, request, deadline),
      () => undefined,
      deadline,
    );

  /**
   * Does something with a VM that has to run: a suspended one is brought back, also one that was suspended while this waited for its turn.
   * @param done what is there already, so that nothing has to be done.
   */
  async #whileRunning<T>(
    ref: string,
    work: () => Promise<T>,
    done: () => T | undefined,
    deadline: Deadline,
  ): Promise<T> {
    for (;;) {
      const known = done();
      if (known !== undefined) return known;
      await this.awaken(ref, deadline);
      try {
        return await work();
      } catch (error) {
        // Its QEMU has gone before, or while, it was looked at.
        const isGone =
          error instanceof MayflyError && (error.code === "vm_not_running" || error.kind === "unavailable");
        if (!isGone || this.parts.vms.get(ref).state !== "suspended") throw error;
      }
    }
  }

  /** Brings a VM back that is suspended, for what needs it to run. */
  async awaken(ref: string, deadline: Deadline): Promise<void> {
    const { id, name, state } = this.parts.vms.get(ref);
    if (state === "suspended") await this.resume(ref, deadline);
    const adoption = this.parts.vms.adoptions.get(id);
    if (adoption !== undefined) await deadline.race(adoption.ended, `the answer of VM ${name} to the new daemon`);
  }

  /** Starts a VM from a snapshot. */
  clone(request: CreateVmRequest, options: ProgressOptions & { sink?: OutputSink }) {
    return createFromSnapshot(this.parts, this.gate, this.#records, request, {
      ...options,
      onCopied: (id) => this.#promotions.copied(id),
    });
  }

  /** Ends what is done in the background. */
  async close(): Promise<void> {
    await this.#promotions.close();
    await this.#returns.close();
  }

  /** How a VM that was started from a snapshot is started again. */
  relaunch(vm: Vm, request: CreateVmRequest, deadline: Deadline) {
    return relaunchFromSnapshot(this.parts, this.gate, this.#records, vm, request, deadline);
  }

  list = (): Snapshot[] => this.#records.list();
  get = (ref: string): Snapshot => this.#records.get(ref);

  async remove(ref: string): Promise<void> {
    const { id, name } = this.#records.get(ref);
    const users = usersOf(id, this.parts.vms.list());
    if (users.length > 0) {
      throw new MayflyError(
        "snapshot_in_use",
        `Cannot remove snapshot ${name ?? id}: it is needed by ${users.join(", ")}`,
        {
          details: { users },
        },
      );
    }
    await this.#records.remove(id);
  }

  async prune({ all = false }: PruneSnapshotsRequest): Promise<PruneResult> {
    const vms = this.parts.vms.list();
    const isOrigin = (id: string) => vms.some(({ origin }) => origin?.id === id);
    const unused = this.list().filter(({ id, name }) => {
      return usersOf(id, vms).length === 0 && !isOrigin(id) && (all || name === null);
    });
    for (const { id } of unused) await this.#records.remove(id);
    const freedBytes = unused.reduce((bytes, { sizeBytes }) => bytes + sizeBytes, 0);
    return { removed: unused.map(({ id, name }) => name ?? id), freedBytes };
  }

  async verify(ref: string, _deadline: Deadline): Promise<VerifyResult> {
    const { id } = this.#records.get(ref);
    const problems = await this.#records.store.verify(id);
    return { id, ok: problems.length === 0, problems };
  }

  async diff(
    ref: string,
    { from, files = false }: { from?: string; files?: boolean },
    deadline: Deadline,
  ): Promise<SnapshotDiff> {
    const [to, other] = [this.get(ref).id, from === undefined ? undefined : this.get(from).id];
    const pages = await this.#records.store.diff(to, other);
    if (!files) return pages;
    const before = other === undefined ? undefined : await this.#records.ready(other);
    const after = await this.#records.ready(to);
    return { ...pages, files: await changedFiles(this.parts, this.gate, after, before, deadline) };
  }

  export = (ref: string, request: ExportSnapshotRequest, options: ProgressOptions): Promise<Snapshot> =>
    exportTo(this.parts, this.#records, ref, request, options);
  import = (request: ImportSnapshotRequest, options: ProgressOptions): Promise<Snapshot> =>
    importFrom(this.parts, this.#records, request, options);
  promote = (ref: string, options: ProgressOptions): Promise<Snapshot> => this.#promotions.promote(ref, options);

  async tree(): Promise<TreeNode[]> {
    const snapshots = this.list();
    const known = new Map<string, MemoryShare>();
    for (const snapshot of snapshots) known.set(snapshot.id, await this.#memory.ofSnapshot(snapshot));
    const memory = (id: string) => known.get(id) ?? this.#memory.ofVm({ id });
    return drawTree({ ...this.parts, memory }, snapshots);
  }
}
