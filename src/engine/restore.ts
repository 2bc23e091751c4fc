/** VMs that come back as they were: a suspended one from the snapshot that it waits in, and one of a checkpoint under its own id and name. */
import type { Vm } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import { Deadline } from "../sys/deadline.ts";
import { LIMITS_MS } from "./config.ts";
import type { EngineParts } from "./engine.ts";
import { emptyHeld } from "./fork.ts";
import type { Gate } from "./gate.ts";
import { Holdings } from "./holdings.ts";
import { type Identity, newIdentity } from "./identity.ts";
import { withPorts } from "./ports.ts";
import { NOT_RESTARTED, type VmRecord } from "./records.ts";
import { closeLogs, openLogs } from "./running-vm.ts";
import { launchFrom } from "./snapshot-launch.ts";
import type { SnapshotRecords } from "./snapshot-records.ts";

/** Brings VMs back: one at a time of each. */
export class Returns {
  readonly #underWay = new Map<string, Promise<Vm>>();
  /** Snapshots that are forgotten already, and whose files go. */
  readonly #removals = new Set<Promise<void>>();

  constructor(
    private readonly parts: EngineParts,
    private readonly gate: Gate,
    private readonly snapshots: SnapshotRecords,
  ) {}

  /** Brings a suspended VM back; whoever asks meanwhile gets the same. One that runs is returned as it is. */
  async resume(ref: string, deadline: Deadline): Promise<Vm> {
    const vm = this.parts.vms.get(ref);
    if (vm.state === "running") return vm;
    if (vm.state !== "suspended" || vm.suspendedIn === null) {
      throw new MayflyError("vm_not_running", `Cannot resume VM ${vm.name}: it is ${vm.state}`, { vmId: vm.id });
    }
    // Whoever gives up waiting does not take it from the others.
    return deadline.race(
      this.#once(vm.id, () => this.#resume(vm.id)),
      `the return of VM ${vm.name}`,
    );
  }

  /** The return of a VM that is under way. */
  returning(id: string): Promise<Vm> | undefined {
    return this.#underWay.get(id);
  }

  /** Something needs a suspended VM: it comes back, and who waits for it learns why if it does not. */
  wake(id: string): void {
    if (this.#underWay.has(id)) return;
    const { vms, events } = this.parts;
    this.resume(id, Deadline.after(LIMITS_MS.clone)).catch((error: unknown) => {
      const reason = error instanceof Error ? error.message : String(error);
      events.emit("vm.resume_failed", id, vms.record(id)?.vm.name, { reason });
    });
  }

  /**
   * Brings the VM of a snapshot back.
   * @throws `vm_running` while it has not ended, `name_in_use`, `port_in_use`, and what starting throws; an ended VM is as it was then.
   */
  async restore(ref: string, deadline: Deadline): Promise<Vm> {
    const snapshot = await this.snapshots.ready(ref);
    const { vm } = snapshot.vm.captured;
    const known = this.parts.vms.record(vm.id);
    if ((known !== undefined && known.vm.finishedAt === null) || this.#underWay.has(vm.id)) {
      const state = known?.vm.state ?? "being restored";
      throw new MayflyError(
        "vm_running",
        `Cannot restore VM ${vm.name}: it is ${state}; clone it (run --snapshot) or remove it first`,
        {
          vmId: vm.id,
        },
      );
    }
    return this.#once(vm.id, () => this.#restore(snapshot, deadline));
  }

  #once(id: string, work: () => Promise<Vm>): Promise<Vm> {
    const known = this.#underWay.get(id);
    if (known !== undefined) return known;
    const begun = work().finally(() => this.#underWay.delete(id));
    this.#underWay.set(id, begun);
    begun.catch(() => undefined);
    return begun;
  }

  async #resume(id: string): Promise<Vm> {
    const { admission, vms, events, host } = this.parts;
    const deadline = Deadline.after(LIMITS_MS.clone);
    // It may have been suspended only just now, and its QEMU not be gone yet.
    await vms.ending(id);
    const record = vms.record(id);
    const holdings = vms.parked.get(id);
    if (record === undefined || holdings === undefined || record.vm.suspendedIn === null) {
      throw new MayflyError("vm_not_running", "Cannot resume a VM that has just ended", { vmId: id });
    }
    const { vm, stopGraceMs } = record;
    const snapshotId = record.vm.suspendedIn;
    const snapshot = await this.snapshots.ready(snapshotId);
    const goesOnAt = vm.autoRemove ? (snapshot.vm.main ?? { output: 0, error: 0 }) : this.#logged(record);
    const instructions = host.records.restartOf(id);
    // Its volumes are not in the snapshot: once the guest has run with them, that fits them no more.
    let hasRun = false;
    const revival = {
      kind: "resume" as const,
      snapshot,
      vm,
      request: instructions?.request ?? (stopGraceMs === null ? {} : { stopGraceMs }),
      identity: identityOf(record),
      holdings,
      goesOnAt: { output: goesOnAt.output, error: goesOnAt.error },
      health: record.health,
      beforeLoad: () => {
        if (record.held.volumes.length === 0) return;
        host.records.putVm({ ...record, isReturning: true });
        hasRun = true;
      },
    };
    const { launch, refill } = launchFrom(this.parts, this.gate, revival, deadline);
    const suspendedMs = Date.now() - Date.parse(snapshot.document.createdAt);
    const killAtMs = record.killAtMs === null ? null : record.killAtMs + suspendedMs;
    let resumed: Vm;
    try {
      resumed = await admission.comeBack(vm, deadline, () =>
        vms.comeBack({ ...vm, suspendedIn: null }, { ...record, killAtMs }, launch, deadline),
      );
    } catch (error) {
      holdings.park(this.wake.bind(this, id));
      if (hasRun) await vms.drop(id, asCause(error));
      throw error;
    } finally {
      refill();
    }
    events.emit("vm.resumed", id, vm.name, { snapshotId });
    this.#release(snapshotId);
    return resumed;
  }

  /** The VM runs: nobody waits for the files of the snapshot that it waited in. */
  #release(snapshotId: string): void {
    const { vms, events } = this.parts;
    const removal = this.snapshots.release(snapshotId, vms.list()).catch((error: unknown) => {
      const reason = error instanceof Error ? error.message : String(error);
      events.emit("snapshot.removal_failed", snapshotId, undefined, { reason });
    });
    this.#removals.add(removal);
    void removal.then(() => this.#removals.delete(removal));
  }

  /** Resolves when what is removed is gone. */
  async close(): Promise<void> {
    await Promise.all(this.#removals);
  }

  async #restore(snapshot: Awaited<ReturnType<SnapshotRecords["ready"]>>, deadline: Deadline): Promise<Vm> {
    const { admission, vms, volumes, events } = this.parts;
    const { captured, held, main } = snapshot.vm;
    const before = captured.vm;
    const vm: Vm = { ...before, state: "creating", pid: null, suspendedIn: null, finishedAt: null, error: null };
    const wanted = { memoryBytes: vm.memoryBytes, what: `restore VM ${vm.name}` };
    const { known, holdings } = await admission.admit(wanted, deadline, () => {
      const known = vms.record(vm.id);
      if (known === undefined) vms.name(before.name);
      const holdings = withPorts(vms.list(), vm.ports, (ports) => {
        const made = new Holdings(emptyHeld(held));
        made.add(ports);
        return made;
      });
      vms.admit(vm);
      return { known, holdings };
    });
    const record: VmRecord = {
      ...{ vm, qemu: null, main: null, killAtMs: null, memoryPath: "", held: holdings.record, restart: NOT_RESTARTED },
      ...{ container: captured.container, again: captured.again, machineId: captured.machineId },
      ...{ stopGraceMs: captured.stopGraceMs, health: captured.health },
    };
    try {
      holdings.addDisks(await volumes.disks.copy(vm, held.disks));
      const revival = {
        kind: "restore" as const,
        snapshot,
        vm,
        request: {
          snapshot: snapshot.document.id,
          ...(captured.stopGraceMs === null ? {} : { stopGraceMs: captured.stopGraceMs }),
        },
        identity: identityOf(record),
        holdings,
        goesOnAt: { output: main?.output ?? 0, error: main?.error ?? 0 },
        health: captured.health,
      };
      const { launch, refill } = launchFrom(this.parts, this.gate, revival, deadline);
      const restored = await vms.comeBack(vm, record, launch, deadline).finally(refill);
      events.emit("vm.restored", vm.id, vm.name, { snapshotId: snapshot.document.id });
      return restored;
    } catch (error) {
      await holdings.release("never_started");
      if (known === undefined) vms.dismiss(vm.id);
      else vms.restore(known);
      throw error;
    }
  }

  /** How far a VM's logs have what its main process printed. */
  #logged({ vm, main }: VmRecord): { output: number; error: number } {
    const logs = openLogs(this.parts.vms.directory(vm.id), this.parts.host.config.logLimitBytes);
    const { stdout, stderr } = main?.base ?? { stdout: 0, stderr: 0 };
    const logged = { output: logs.stdout.offset - stdout, error: logs.stderr.offset - stderr };
    closeLogs(logs);
    return logged;
  }
}

/** A VM's own identity; one of which no machine id is known gets a new one. */
export function identityOf({ vm, machineId }: Pick<VmRecord, "vm" | "machineId">): Identity {
  const identity = newIdentity(vm.hostname);
  return machineId === null ? identity : { ...identity, machineId: Buffer.from(machineId, "hex") };
}

function asCause(error: unknown): MayflyError {
  if (error instanceof MayflyError) return error;
  return new MayflyError("internal", `The VM could not be resumed: ${error}`, { cause: error });
}
