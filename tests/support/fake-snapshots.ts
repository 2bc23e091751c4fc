/** The fake engine's snapshots: records that come from its VMs. */
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
} from "../../src/contract/api.ts";
import { MayflyError } from "../../src/contract/errors.ts";
import type { ProgressOptions } from "../../src/engine/interface.ts";
import type { SnapshotEngine } from "../../src/engine/snapshot-interface.ts";
import type { Deadline } from "../../src/sys/deadline.ts";
import { newId } from "../../src/sys/ids.ts";
import { sampleSnapshot, sampleTemplate, sampleVm } from "./samples.ts";

/** As much of the fake engine as its snapshots work on. */
interface FakeVms {
  readonly vms: Map<string, Vm>;
  getVm(ref: string): Vm;
  /** Awaited by what takes long. */
  work: (options: ProgressOptions) => Promise<void>;
}

export class FakeSnapshots implements SnapshotEngine {
  readonly snapshots = new Map<string, Snapshot>();
  /** Ids of snapshots that are damaged. */
  readonly damaged = new Set<string>();

  constructor(private readonly engine: FakeVms) {}

  async checkpoint(ref: string, request: CheckpointRequest, deadline: Deadline): Promise<Snapshot> {
    const vm = this.engine.getVm(ref);
    if (vm.state !== "running")
      throw new MayflyError("vm_not_running", `Cannot checkpoint VM ${vm.name}: it has ended`);
    if (this.list().some(({ name }) => name !== null && name === request.name)) {
      throw new MayflyError("name_in_use", `There is a snapshot ${request.name}`);
    }
    await deadline.race(this.engine.work({ deadline }), "the fake's work");
    const kind = request.stop ? "suspended" : "checkpoint";
    const from = { vmId: vm.id, vmName: vm.name, origin: vm.origin, templateId: vm.templateId };
    const snapshot: Snapshot = { ...sampleSnapshot, ...from, id: newId("snap"), name: request.name ?? null, kind };
    this.snapshots.set(snapshot.id, snapshot);
    if (request.stop) this.#change(vm, { state: "suspended", suspendedIn: snapshot.id, pid: null });
    return snapshot;
  }

  async resume(ref: string): Promise<Vm> {
    const vm = this.engine.getVm(ref);
    if (vm.suspendedIn === null) return vm;
    this.snapshots.delete(vm.suspendedIn);
    return this.#change(vm, { state: "running", suspendedIn: null, pid: 4243 });
  }

  async fork(ref: string, request: ForkRequest, deadline: Deadline): Promise<ForkResult> {
    const parent = this.engine.getVm(ref);
    await deadline.race(this.engine.work({ deadline }), "the fake's work");
    const { count = 1, namePrefix: prefix, labels = {}, autoRemove = false } = request;
    const vmIds = Array.from({ length: count }, (_, index) => {
      const id = newId("vm");
      const name =
        prefix === undefined ? `vm${this.engine.vms.size + 1}` : count === 1 ? prefix : `${prefix}-${index + 1}`;
      const origin = { kind: "fork", id: parent.id, name: parent.name } as const;
      this.engine.vms.set(id, { ...parent, id, name, labels, autoRemove, origin });
      return id;
    });
    return { vmIds, times: { ...sampleSnapshot.times, durableMs: null }, deltaBytes: 400_000 };
  }

  async restore(ref: string): Promise<Vm> {
    const { vmId, vmName, id } = this.get(ref);
    const vm = this.engine.vms.get(vmId) ?? { ...sampleVm, id: vmId, name: vmName, state: "exited" };
    if (vm.state === "running") {
      throw new MayflyError("vm_running", `Cannot restore snapshot ${id}: its VM ${vmName} runs`);
    }
    return this.#change(vm, { state: "running", pid: 4244 });
  }

  list(): Snapshot[] {
    return [...this.snapshots.values()];
  }

  get(ref: string): Snapshot {
    const found = this.snapshots.get(ref) ?? this.list().find(({ name }) => name === ref);
    if (found === undefined) throw new MayflyError("snapshot_not_found", `There is no snapshot ${ref}`);
    return found;
  }

  async remove(ref: string): Promise<void> {
    const { id } = this.get(ref);
    const user = [...this.engine.vms.values()].find(({ suspendedIn }) => suspendedIn === id);
    if (user !== undefined) {
      throw new MayflyError("snapshot_in_use", `Cannot remove snapshot ${ref}: VM ${user.name} is suspended in it`);
    }
    this.snapshots.delete(id);
  }

  async prune({ all = false }: PruneSnapshotsRequest): Promise<PruneResult> {
    const gone = this.list().filter(({ kind, name }) => kind === "checkpoint" && (all || name === null));
    for (const { id } of gone) this.snapshots.delete(id);
    return { removed: gone.map(({ id }) => id), freedBytes: gone.length * sampleSnapshot.sizeBytes };
  }

  async verify(ref: string): Promise<VerifyResult> {
    const { id } = this.get(ref);
    const problems = this.damaged.has(id) ? ["pages: sha256 differs"] : [];
    return { id, ok: problems.length === 0, problems };
  }

  async diff(ref: string, { from, files }: { from?: string; files?: boolean }): Promise<SnapshotDiff> {
    const to = this.get(ref).id;
    const other = from === undefined ? null : this.get(from).id;
    const ranges = [
      { startBytes: 0x1000, lengthBytes: 8192 },
      { startBytes: 0x400_0000, lengthBytes: 4096 },
    ];
    const pages = { from: other, to, pages: 3, ranges, truncated: false };
    return files === true ? { ...pages, files: [{ kind: "added", path: "/tmp/a\nb" }] } : pages;
  }

  async export(ref: string, request: ExportSnapshotRequest, options: ProgressOptions): Promise<Snapshot> {
    options.onProgress?.("writing pages");
    await options.deadline.race(this.engine.work(options), "the fake's work");
    if (request.path === "/full") throw new MayflyError("disk_full", "Cannot export to /full: the disk is full");
    return this.get(ref);
  }

  async import({ path, name }: ImportSnapshotRequest, options: ProgressOptions): Promise<Snapshot> {
    options.onProgress?.("reading pages");
    if (path === "/bad") throw new MayflyError("snapshot_corrupt", "Cannot import /bad: its checksum differs");
    const snapshot: Snapshot = { ...sampleSnapshot, id: newId("snap"), name: name ?? null };
    this.snapshots.set(snapshot.id, snapshot);
    return snapshot;
  }

  async promote(ref: string, options: ProgressOptions): Promise<Snapshot> {
    options.onProgress?.("writing memory");
    await options.deadline.race(this.engine.work(options), "the fake's work");
    const snapshot = { ...this.get(ref), promotedTo: sampleTemplate.id };
    this.snapshots.set(snapshot.id, snapshot);
    return snapshot;
  }

  async tree(): Promise<TreeNode[]> {
    const { id, name, createdAt, memory } = sampleTemplate;
    const root: TreeNode = {
      kind: "template",
      id,
      name,
      parentId: null,
      state: "base",
      createdAt,
      ...sizes(memory.allocatedBytes, 0),
    };
    const snapshots = this.list().map(
      (snapshot): TreeNode => ({
        ...{ kind: "snapshot", id: snapshot.id, name: snapshot.name, parentId: id, state: snapshot.kind },
        ...{ createdAt: snapshot.createdAt, ...sizes(40 << 20, snapshot.sizeBytes) },
      }),
    );
    const vms = [...this.engine.vms.values()].map((vm): TreeNode => {
      const parentId = vm.suspendedIn ?? vm.origin?.id ?? id;
      const memoryOf = vm.state === "running" ? sizes(30 << 20, 10 << 20) : { sharedBytes: null, uniqueBytes: null };
      return { kind: "vm", id: vm.id, name: vm.name, parentId, state: vm.state, createdAt: vm.createdAt, ...memoryOf };
    });
    return [root, ...snapshots, ...vms];
  }

  #change(vm: Vm, change: Partial<Vm>): Vm {
    const changed = { ...vm, ...change };
    this.engine.vms.set(vm.id, changed);
    return changed;
  }
}

function sizes(sharedBytes: number, uniqueBytes: number) {
  return { sharedBytes, uniqueBytes };
}
