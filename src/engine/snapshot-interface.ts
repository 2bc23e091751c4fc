/** What the engine offers of checkpoints, forks and lineage; `ref` is an id, a name, or an unambiguous prefix of an id's random part. */
import type {
  CheckpointRequest,
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
import type { Deadline } from "../sys/deadline.ts";
import type { ProgressOptions } from "./interface.ts";

/** Checkpoints, forks and lineage. A VM that is started from a snapshot is `createVm` with `snapshot`. */
export interface SnapshotEngine {
  /**
   * Takes a running VM's state; with `stop` it is suspended. The VM goes on as before when anything fails.
   * @throws `vm_not_running`, `not_capturable`, `name_in_use`, `disk_full` ...
   */
  checkpoint(ref: string, request: CheckpointRequest, deadline: Deadline): Promise<Snapshot>;
  /** Brings a suspended VM back; one that runs is returned as it is. */
  resume(ref: string, deadline: Deadline): Promise<Vm>;
  /** Starts VMs from a running one. All of them are ready, or none is left. */
  fork(ref: string, request: ForkRequest, deadline: Deadline): Promise<ForkResult>;
  /** Brings the VM of a snapshot back as it was, under its own id and name. @throws `vm_running` while that VM has not ended. */
  restore(ref: string, deadline: Deadline): Promise<Vm>;

  list(): Snapshot[];
  get(ref: string): Snapshot;
  /** @throws `snapshot_in_use` naming those that need it. */
  remove(ref: string): Promise<void>;
  prune(request: PruneSnapshotsRequest): Promise<PruneResult>;
  /** Reads all of it and compares with its checksums. */
  verify(ref: string, deadline: Deadline): Promise<VerifyResult>;
  /** Compares with another snapshot of the same base, or with the base itself; with `files` also what the VM has changed of its image. */
  diff(ref: string, options: { from?: string; files?: boolean }, deadline: Deadline): Promise<SnapshotDiff>;
  /** Writes one file with everything that another host needs. @throws `file_operation_failed`, `disk_full`; nothing is left of the file then. */
  export(ref: string, request: ExportSnapshotRequest, options: ProgressOptions): Promise<Snapshot>;
  /** @throws `snapshot_incompatible` naming the fields that differ, `snapshot_corrupt`. */
  import(request: ImportSnapshotRequest, options: ProgressOptions): Promise<Snapshot>;
  /** Makes a template of a snapshot, whose clones share all of its pages. */
  promote(ref: string, options: ProgressOptions): Promise<Snapshot>;
  /** Templates, snapshots and VMs, parents before children. */
  tree(): Promise<TreeNode[]>;
}
