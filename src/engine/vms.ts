/** The VMs of this host: started, listed, ended, removed. Every change of state is recorded before it is told. */
import { join } from "node:path";
import type { ExecRequest, Vm } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import { systemClock } from "../sys/clock.ts";
import type { Deadline } from "../sys/deadline.ts";
import { bootId } from "../sys/process.ts";
import { diskFull } from "../sys/publish.ts";
import { ensureDirectory, removeTree } from "../sys/store-files.ts";
import type { Adoption } from "./adopt.ts";
import { EndWaiters } from "./end-waiters.ts";
import { killVm, stopVm } from "./ending.ts";
import type { Events } from "./events.ts";
import { execSpec } from "./exec-spec.ts";
import { HealthChecks } from "./health-checks.ts";
import type { Holdings } from "./holdings.ts";
import type { Host } from "./host.ts";
import { Idle } from "./idle.ts";
import type { OutputSink, ProcessSession } from "./interface.ts";
import { type Launch, type LaunchFrom, launchIn } from "./launch.ts";
import type { Metrics } from "./metrics.ts";
import { freeName } from "./names.ts";
import { admittedRecord, NOT_RESTARTED, type VmRecord } from "./records.ts";
import { resolveRef } from "./refs.ts";
import { type Relaunch, Restarts } from "./restarts.ts";
import { asMayflyError, openLogs, type RunningVm, type VmEnd, withEnd } from "./running-vm.ts";
import type { Workload } from "./workload.ts";

/** All VMs of a state directory. */
export class Vms {
  readonly #records = new Map<string, VmRecord>();
  readonly #running = new Map<string, RunningVm>();
  readonly #waiters = new EndWaiters();
  /** Health checks of those that have one. */
  readonly health: HealthChecks;
  /** What becomes of those that have an idle policy. */
  readonly idle: Idle;
  /** Starts of those that have ended, by their policy. */
  readonly restarts: Restarts;
  /** What suspended VMs hold of the host. */
  readonly parked = new Map<string, Holdings>();
  /** VMs of an earlier daemon that have not answered this one yet. */
  readonly adoptions = new Map<string, Adoption>();
  /** Called when a suspended VM goes, with the snapshot that it waited in. */
  onDropped: (snapshotId: string) => Promise<void> = async () => undefined;
  /** The return of a suspended VM that is under way. */
  returning: (id: string) => Promise<unknown> | undefined = () => undefined;
  /** How a VM whose QEMU is gone is started again; see `create.ts`. */
  relaunch: Relaunch | undefined;

  constructor(
    private readonly host: Host,
    private readonly events: Events,
    private readonly metrics: Metrics,
  ) {
    this.health = new HealthChecks(this, systemClock, events, metrics);
    this.idle = new Idle(this, systemClock, events, metrics);
    this.health.isResting = (id) => this.idle.isPaused(id);
    this.restarts = new Restarts({ host, vms: this, health: this.health, clock: systemClock, events, metrics });
  }

  /** Directory of a VM's logs. */
  directory(id: string): string {
    return join(this.host.config.stateDir, "vms", id);
  }

  list(): Vm[] {
    return [...this.#records.values()].map((record) => record.vm);
  }

  get(ref: string): Vm {
    return this.#resolve(ref).vm;
  }

  /** The record of a VM, by its id. */
  record(id: string): VmRecord | undefined {
    return this.#records.get(id);
  }

  /** A VM that has a QEMU, by its id. */
  runningOf(id: string): RunningVm | undefined {
    return this.#running.get(id);
  }

  /** @param verb what was to be done, for the message. @throws `vm_not_running` naming its state. */
  running(ref: string, verb = "do this with"): RunningVm {
    const { vm } = this.#resolve(ref);
    const running = this.#running.get(vm.id);
    if (running !== undefined) return running;
    const why = this.adoptions.has(vm.id) ? "has not answered yet since the daemon was started" : `is ${vm.state}`;
    throw new MayflyError("vm_not_running", `Cannot ${verb} VM ${vm.name}: it ${why}`, { vmId: vm.id });
  }

  /** Whether any VM runs on a template. */
  runsOn(templateId: string): boolean {
    return this.list().some((vm) => vm.templateId === templateId && vm.finishedAt === null);
  }

  /** Whether a VM has a QEMU of its own. */
  isRunning(id: string): boolean {
    return this.#running.has(id);
  }

  /** The end of a VM that has begun to end; undefined for one that goes on, or is gone. */
  ending(id: string): Promise<unknown> | undefined {
    const running = this.#running.get(id);
    return running?.isEnding === true ? running.ended : undefined;
  }

  /** A free name, or the one that is asked for. @throws `name_in_use`. */
  name(wanted: string | undefined): string {
    const holder = (name: string) => this.list().find((vm) => vm.name === name);
    const taken = wanted === undefined ? undefined : holder(wanted);
    if (taken !== undefined) {
      throw new MayflyError("name_in_use", `Cannot name a VM ${wanted}: ${taken.id} has that name`);
    }
    return wanted ?? freeName((name) => holder(name) !== undefined);
  }

  /** Records a new VM as `creating`: its name is taken from now on. */
  admit(vm: Vm): void {
    this.#records.set(vm.id, admittedRecord(vm));
  }

  /** Forgets an admitted VM that will not be started. */
  dismiss(id: string): void {
    this.#forget(id);
  }

  /**
   * Starts an admitted VM and its main process.
   * @throws what starting throws; the VM is gone then (a failed start leaves nothing, as with docker run's 125).
   */
  async start(
    vm: Vm,
    launch: Launch,
    sink: OutputSink | undefined,
    deadline: Deadline,
  ): Promise<{ vm: Vm; process: ProcessSession | undefined }> {
    const { timeoutMs } = launch.request;
    const killAtMs = () => (timeoutMs === undefined ? null : Date.now() + timeoutMs);
    try {
      return await this.#begin({ vm, sink, restart: NOT_RESTARTED }, killAtMs, launch, deadline);
    } catch (thrown) {
      await launch.holdings.release("never_started");
      const error = diskFull(thrown, this.directory(vm.id));
      this.#forget(vm.id);
      const typed = asMayflyError(error);
      this.metrics.failed(typed.code);
      this.#waiters.wake(withEnd(vm, { by: "failure", error: typed }));
      throw error;
    }
  }

  /** Starts a VM without a QEMU as it was made. @throws what starting throws; its record is as it was then. */
  async startAgain({ vm, restart, killAtMs }: VmRecord, launch: Launch, deadline: Deadline): Promise<void> {
    try {
      await this.#begin({ vm, sink: undefined, restart }, () => killAtMs, launch, deadline);
    } catch (error) {
      await launch.holdings.release();
      this.metrics.failed(asMayflyError(error).code);
      throw diskFull(error, this.directory(vm.id));
    }
  }

  /**
   * Brings back a VM that was suspended. @throws what starting throws; it is suspended as before then.
   * @param vm as it is from now on.
   */
  async comeBack(vm: Vm, { restart, killAtMs }: VmRecord, launch: Launch, deadline: Deadline): Promise<Vm> {
    try {
      const begun = await this.#begin({ vm, sink: undefined, restart }, () => killAtMs, launch, deadline);
      this.parked.delete(vm.id);
      return begun.vm;
    } catch (error) {
      throw diskFull(error, this.directory(vm.id));
    }
  }

  async #begin(
    from: Pick<LaunchFrom, "vm" | "sink" | "restart">,
    killAtMs: () => number | null,
    launch: Launch,
    deadline: Deadline,
  ): Promise<{ vm: Vm; process: ProcessSession | undefined }> {
    const { id, name, autoRemove, restart } = from.vm;
    const started = await launch.start();
    const { path, clock } = started;
    const openLogs = () => (autoRemove ? undefined : this.#openLogs(id));
    const keep = (record: VmRecord) => {
      deadline.signal?.throwIfAborted();
      if (restart.name !== "no") {
        this.host.records.putRestart(id, { request: launch.request, main: launch.again ?? null });
      }
      this.host.records.putVm(record);
    };
    const parts = { ...from, openLogs, killAtMs: killAtMs(), keep };
    const { running, main, record } = await launchIn(started, launch, parts, deadline);
    this.metrics.cloned(path, record.vm.clone.readyMs ?? 0, clock.stages);
    this.#records.set(id, record);
    this.hold(running);
    this.events.emit("vm.running", id, name, { path, readyMs: record.vm.clone.readyMs });
    return { vm: record.vm, process: main?.session(undefined) };
  }

  /**
   * A running VM waits in a snapshot from now on: recorded, then its QEMU ends.
   * @param wake brings it back.
   * @throws `disk_full`, and `vm_not_running` when it has begun to end; nothing has happened then.
   */
  async park(running: RunningVm, snapshotId: string, wake: () => void): Promise<void> {
    const record = this.#records.get(running.id);
    if (record === undefined || running.isEnding || record.vm.state !== "running") {
      throw new MayflyError("vm_not_running", `Cannot suspend VM ${running.id}: it is ending`, { vmId: running.id });
    }
    const { id, name } = record.vm;
    const { pausedAt: _, ...ran } = record.vm;
    const vm: Vm = { ...ran, state: "suspended", pid: null, suspendedIn: snapshotId };
    const suspended = { ...record, vm, qemu: null };
    this.host.records.putVm(suspended);
    this.#records.set(id, suspended);
    const why = new MayflyError("vm_not_running", `VM ${name} was suspended`, { vmId: id });
    this.parked.set(id, running.park(wake, why));
    await running.ended;
    this.events.emit("vm.suspended", id, name, { snapshotId });
  }

  /** Takes charge of a running VM: its end is recorded, told and cleaned up after. */
  hold(running: RunningVm): void {
    this.#running.set(running.id, running);
    running.ended.then((end) => this.#ended(running, end));
    running.watch((main, status) => this.restarts.afterExit(running, main, status));
    if (this.#records.get(running.id)?.vm.state === "running") this.health.begin(running);
    this.idle.begin(running);
  }

  /** Disconnects from all running VMs: the next daemon adopts them. */
  async letGo(): Promise<void> {
    await Promise.all([...this.adoptions.values()].map((adoption) => adoption.letGo()));
    for (const holdings of this.parked.values()) holdings.letGo();
    this.parked.clear();
    this.health.letGo();
    this.idle.letGo();
    await this.restarts.letGo();
    for (const running of this.#running.values()) running.letGo();
    this.#running.clear();
  }

  /** Takes over a record of an earlier daemon. */
  restore(record: VmRecord): void {
    const { pausedAt: _, ...vm } = record.vm;
    this.#records.set(vm.id, { ...record, vm });
  }

  /** Records that a VM has ended while no daemon watched it, or could not be adopted; it is started again if its policy says so. */
  lost(record: VmRecord, error: MayflyError): void {
    const isRestarted = record.qemu?.identity.bootId === bootId() ? "afterFailure" : "afterReboot";
    if (!this.restarts[isRestarted](record, error)) this.settle(record, { by: "failure", error });
  }

  #ended(running: RunningVm, end: VmEnd): void {
    this.#running.delete(running.id);
    this.health.end(running.id);
    this.idle.end(running.id);
    const record = this.#records.get(running.id);
    if (record === undefined || end.by === "suspension") return;
    if (end.by === "failure" && this.restarts.afterFailure(record, end.error)) return;
    this.settle(record, end);
  }

  /** Records and tells the end of a VM whose QEMU is gone. */
  settle(record: VmRecord, end: VmEnd): void {
    const restart = { ...record.restart, nextAtMs: null };
    this.#settle({ ...record, vm: withEnd(record.vm, end), qemu: null, restart });
  }

  #settle(record: VmRecord): void {
    const { vm } = record;
    this.update(record);
    const { exitCode, error } = vm;
    this.events.emit(`vm.${vm.state}`, vm.id, vm.name, { exitCode, ...(error === null ? {} : { code: error.code }) });
    this.#waiters.wake(vm);
    if (vm.autoRemove) this.#remove(vm);
  }

  async exec(ref: string, request: ExecRequest, sink: OutputSink, deadline: Deadline): Promise<ProcessSession> {
    const running = this.withMain(ref);
    const { vm, container } = this.#resolve(running.id);
    const spec = await execSpec(running.agent, request, { hostname: vm.hostname, container }, deadline);
    const workload = await running.exec(spec, request.timeoutMs, sink, deadline);
    return workload.session(sink);
  }

  /** A VM in which something can be run. @throws `vm_not_running`, also between two main processes. */
  withMain(ref: string, verb = "do this with"): RunningVm {
    const running = this.running(ref, verb);
    const { vm } = this.#resolve(running.id);
    if (vm.state !== "restarting") return running;
    const why = "its main process is being started again";
    throw new MayflyError("vm_not_running", `Cannot ${verb} VM ${vm.name}: ${why}`, { vmId: vm.id });
  }

  /** @throws `vm_not_running` for a VM that has ended or has no main process. */
  main(ref: string): Workload {
    const running = this.withMain(ref);
    if (running.main !== undefined) return running.main;
    const { name } = this.#resolve(ref).vm;
    throw new MayflyError("vm_not_running", `VM ${name} has no main process: it was started without a command`);
  }

  /** See {@link killVm}. */
  kill(ref: string, signal: number, deadline: Deadline): Promise<Vm> {
    return killVm(this, this.get(ref).id, signal, deadline);
  }

  /** A suspended VM ends where it is: its state goes. @param cause why, if nobody has asked for it. */
  async drop(id: string, cause?: MayflyError): Promise<void> {
    if (cause === undefined) await this.returning(id)?.catch(() => undefined);
    const record = this.#records.get(id);
    if (record?.vm.state !== "suspended") return;
    const { suspendedIn } = record.vm;
    const holdings = this.parked.get(id);
    this.parked.delete(id);
    this.settle(
      { ...record, vm: { ...record.vm, suspendedIn: null } },
      cause ? { by: "failure", error: cause } : { by: "request" },
    );
    await holdings?.release();
    if (suspendedIn !== null) await this.onDropped(suspendedIn);
  }

  /** See {@link stopVm}. */
  stop(ref: string, graceMs: number | undefined, deadline: Deadline): Promise<Vm> {
    return stopVm(this, this.get(ref).id, graceMs, deadline);
  }

  /** @throws `vm_running` unless forced. */
  async remove(ref: string, force: boolean): Promise<void> {
    const { vm } = this.#resolve(ref);
    if (vm.finishedAt === null && (!force || vm.state === "creating")) {
      const hint = vm.state === "creating" ? "wait until it runs" : "stop it first, or force its removal";
      throw new MayflyError("vm_running", `Cannot remove VM ${vm.name}: it is ${vm.state}; ${hint}`, { vmId: vm.id });
    }
    await this.adoptions.get(vm.id)?.giveUp();
    if (vm.state === "restarting") await this.restarts.cancel(vm.id);
    await this.drop(vm.id);
    await this.#running.get(vm.id)?.end({ by: "request" });
    if (this.#records.has(vm.id)) this.#remove(vm);
  }

  /** Resolves when the VM has ended; at once if it has. */
  wait(ref: string, signal: AbortSignal | undefined): Promise<Vm> {
    const { vm } = this.#resolve(ref);
    return vm.finishedAt === null ? this.#waiters.wait(vm, signal) : Promise.resolve(vm);
  }

  #openLogs(id: string) {
    ensureDirectory(this.directory(id), 0o700);
    return openLogs(this.directory(id), this.host.config.logLimitBytes);
  }

  #remove(vm: Vm): void {
    this.#forget(vm.id);
    this.events.emit("vm.removed", vm.id, vm.name);
  }

  #forget(id: string): void {
    this.#records.delete(id);
    this.host.records.removeVm(id);
    removeTree(this.directory(id));
  }

  /** Records a change of a VM. */
  update(record: VmRecord): void {
    this.#records.set(record.vm.id, record);
    this.host.records.updateVm(record);
  }

  /** Changes what is shown of a VM, and not what is recorded of it. */
  show(id: string, change: (vm: Vm) => Vm): void {
    const record = this.#records.get(id);
    if (record !== undefined) this.#records.set(id, { ...record, vm: change(record.vm) });
  }

  #resolve(ref: string): VmRecord {
    const known = this.#records.get(ref);
    if (known !== undefined) return known;
    const all = [...this.#records.values()].map((record) => ({ id: record.vm.id, name: record.vm.name, record }));
    return resolveRef(all, ref, "vm").record;
  }
}
