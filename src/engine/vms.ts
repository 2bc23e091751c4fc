/** The VMs of this host: started, listed, ended, removed. Every change of state is recorded before it is told. */
import { join } from "node:path";
import type { AgentProcess } from "../agent/process.ts";
import type { ExecSpec } from "../agent/requests.ts";
import type { ExecRequest, Image, Vm } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import { Deadline } from "../sys/deadline.ts";
import { diskFull } from "../sys/publish.ts";
import { ensureDirectory, removeTree } from "../sys/store-files.ts";
import type { Clone } from "./clone.ts";
import { LIMITS_MS } from "./config.ts";
import type { Events } from "./events.ts";
import { execSpec } from "./exec-spec.ts";
import type { Holdings } from "./holdings.ts";
import type { Host } from "./host.ts";
import type { OutputSink, ProcessSession } from "./interface.ts";
import type { Metrics } from "./metrics.ts";
import { freeName } from "./names.ts";
import type { ContainerRecord, VmRecord } from "./records.ts";
import { resolveRef } from "./refs.ts";
import { asMayflyError, closeLogs, openLogs, RunningVm, type VmEnd, withEnd } from "./running-vm.ts";
import type { Started } from "./start.ts";
import { Workload } from "./workload.ts";

const SIGKILL = 9;
const SIGTERM = 15;

/** How an admitted VM is started. */
export interface Launch {
  /** Makes the clone; see `start.ts`. */
  start: () => Promise<Started>;
  /** The main process; absent: the VM runs until it is removed. */
  main: ExecSpec | undefined;
  /** Milliseconds after which the main process is killed. */
  timeoutMs: number | undefined;
  container: ContainerRecord | null;
  /** Given back when the VM has ended, or could not be started. */
  holdings: Holdings;
}

/** All VMs of a state directory. */
export class Vms {
  readonly #records = new Map<string, VmRecord>();
  readonly #running = new Map<string, RunningVm>();
  readonly #waiters = new Map<string, ((vm: Vm) => void)[]>();

  constructor(
    private readonly host: Host,
    private readonly events: Events,
    private readonly metrics: Metrics,
  ) {}

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

  /** @throws `vm_not_running` naming its state. */
  running(ref: string): RunningVm {
    const { vm } = this.#resolve(ref);
    const running = this.#running.get(vm.id);
    if (running !== undefined) return running;
    throw new MayflyError("vm_not_running", `Cannot do this with VM ${vm.name}: it is ${vm.state}`, { vmId: vm.id });
  }

  /** Whether any VM runs on a template. */
  runsOn(templateId: string): boolean {
    return [...this.#running.values()].some((vm) => vm.clone.template.id === templateId);
  }

  /** Whether a VM has a QEMU of its own. */
  isRunning(id: string): boolean {
    return this.#running.has(id);
  }

  /** Names of the VMs that were started with a volume and not removed since: they may be started again. */
  startedWith(volume: string): string[] {
    const mounts = (vm: Vm) => vm.mounts.some(({ kind, source }) => kind === "volume" && source === volume);
    return this.list()
      .filter(mounts)
      .map((vm) => vm.name);
  }

  /** Names of the VMs that run on an image. */
  runningOnImage({ id, name }: Pick<Image, "id" | "name">): string[] {
    const isOn = (vm: Vm) => vm.imageId === id || vm.rootfs === name;
    const running = this.list().filter((vm) => isOn(vm) && vm.finishedAt === null);
    return running.map((vm) => vm.name);
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
    const nothing = { qemu: null, main: null, killAtMs: null, memoryPath: "", container: null };
    this.#records.set(vm.id, { vm, ...nothing, held: { disks: {}, volumes: [] } });
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
    try {
      const started = await launch.start();
      return await this.#launch(vm, launch, started, sink, deadline);
    } catch (thrown) {
      await launch.holdings.release();
      const error = diskFull(thrown, this.directory(vm.id));
      this.#forget(vm.id);
      const typed = asMayflyError(error);
      this.metrics.failed(typed.code);
      this.#wake(withEnd(vm, { by: "failure", error: typed }));
      throw error;
    }
  }

  async #launch(
    vm: Vm,
    launch: Launch,
    { clone, path, clock }: Started,
    sink: OutputSink | undefined,
    deadline: Deadline,
  ): Promise<{ vm: Vm; process: ProcessSession | undefined }> {
    const readyMs = clock.elapsedMs;
    await using cleanup = new AsyncDisposableStack();
    cleanup.defer(() => clone.qemu.kill());
    const logs = vm.autoRemove ? undefined : this.#openLogs(vm.id);
    cleanup.defer(() => closeLogs(logs));
    const main = launch.main === undefined && clone.main === undefined ? undefined : new Workload(logs, sink);
    const killAtMs = launch.timeoutMs === undefined ? null : Date.now() + launch.timeoutMs;
    const process = main === undefined ? undefined : startMain(clone, launch.main, main, deadline);
    if (main && process) main.bind(process, killAtMs ?? undefined);
    this.metrics.cloned(path, readyMs, clock.stages);
    const { slot, identity } = clone.qemu;
    const shown: Vm = {
      ...vm,
      state: "running",
      templateId: clone.template.id,
      startedAt: new Date().toISOString(),
      pid: clone.qemu.pid,
      clone: { path, readyMs, stages: { ...clock.stages } },
    };
    const pid = process === undefined ? 0 : await clone.qemu.untilExit(process.pid, "starting the command");
    const record: VmRecord = {
      vm: shown,
      qemu: { identity, slot: slot.number },
      main: process === undefined ? null : { object: process.object, pid },
      killAtMs,
      memoryPath: clone.template.memoryPath,
      container: launch.container,
      held: launch.holdings.record,
    };
    this.host.records.putVm(record);
    this.#records.set(vm.id, record);
    cleanup.move();
    this.hold(new RunningVm(vm.id, clone, main, logs, launch.holdings));
    this.events.emit("vm.running", vm.id, vm.name, { path, readyMs });
    return { vm: shown, process: main?.session(undefined) };
  }

  /** Takes charge of a running VM: its end is recorded, told and cleaned up after. */
  hold(running: RunningVm): void {
    this.#running.set(running.id, running);
    running.ended.then((end) => this.#ended(running, end));
  }

  /** Disconnects from all running VMs: the next daemon adopts them. */
  letGo(): void {
    for (const running of this.#running.values()) running.letGo();
    this.#running.clear();
  }

  /** Takes over a record of an earlier daemon. */
  restore(record: VmRecord): void {
    this.#records.set(record.vm.id, record);
  }

  /** Records that a VM has ended while no daemon watched it, or could not be adopted. */
  lost(record: VmRecord, end: VmEnd): void {
    this.#settle({ ...record, vm: withEnd(record.vm, end), qemu: null });
  }

  #ended(running: RunningVm, end: VmEnd): void {
    this.#running.delete(running.id);
    const record = this.#records.get(running.id);
    if (record === undefined) return;
    this.#settle({ ...record, vm: withEnd(record.vm, end), qemu: null });
  }

  #settle(record: VmRecord): void {
    const { vm } = record;
    this.#update(record);
    const { exitCode, error } = vm;
    this.events.emit(`vm.${vm.state}`, vm.id, vm.name, { exitCode, ...(error === null ? {} : { code: error.code }) });
    this.#wake(vm);
    if (vm.autoRemove) this.#remove(vm);
  }

  /** Tells who waits for a VM how it ended. */
  #wake(vm: Vm): void {
    for (const waiter of this.#waiters.get(vm.id) ?? []) waiter(vm);
    this.#waiters.delete(vm.id);
  }

  async exec(ref: string, request: ExecRequest, sink: OutputSink, deadline: Deadline): Promise<ProcessSession> {
    const running = this.running(ref);
    const { vm, container } = this.#resolve(running.id);
    const spec = await execSpec(running.agent, request, { hostname: vm.hostname, container }, deadline);
    const workload = await running.exec(spec, request.timeoutMs, sink, deadline);
    return workload.session(sink);
  }

  /** @throws `vm_not_running` for a VM that has ended or has no main process. */
  main(ref: string): Workload {
    const running = this.running(ref);
    if (running.main !== undefined) return running.main;
    const { name } = this.#resolve(ref).vm;
    throw new MayflyError("vm_not_running", `VM ${name} has no main process: it was started without a command`);
  }

  /** Sends a signal to the main process; without one, only SIGKILL and SIGTERM are possible and end the VM. */
  async kill(ref: string, signal: number, deadline: Deadline): Promise<Vm> {
    const running = this.running(ref);
    const process = running.main?.process;
    if (process !== undefined) await process.signal(signal, signal === SIGKILL, deadline);
    else if (signal === SIGKILL || signal === SIGTERM) await running.end({ by: "request" });
    else throw new MayflyError("invalid_argument", `Cannot send signal ${signal} to a VM without a main process`);
    return this.get(running.id);
  }

  /** The VM's stop signal, then SIGKILL after `graceMs`, then the VM's own end. Resolves when it has ended. */
  async stop(ref: string, graceMs: number, deadline: Deadline): Promise<Vm> {
    const { vm } = this.#resolve(ref);
    const running = this.#running.get(vm.id);
    if (running === undefined) return vm;
    const ended = this.wait(vm.id, undefined);
    this.#update({ ...this.#resolve(vm.id), vm: { ...vm, state: "stopping" } });
    const process = running.main?.process;
    if (process === undefined) {
      await running.end({ by: "request" });
      return ended;
    }
    const within = (ms: number) =>
      Deadline.after(ms)
        .race(running.ended, "the VM's end")
        .then(
          () => true,
          () => false,
        );
    await process.signal(vm.stopSignal, false, deadline).catch(() => undefined);
    if (await within(graceMs)) return ended;
    await process.signal(SIGKILL, true, deadline).catch(() => undefined);
    if (!(await within(LIMITS_MS.request))) await running.end({ by: "request" });
    return ended;
  }

  /** @throws `vm_running` unless forced. */
  async remove(ref: string, force: boolean): Promise<void> {
    const { vm } = this.#resolve(ref);
    const running = this.#running.get(vm.id);
    if (running !== undefined || vm.state === "creating") {
      if (!force || running === undefined) {
        const hint = "stop it first, or force its removal";
        throw new MayflyError("vm_running", `Cannot remove VM ${vm.name}: it is ${vm.state}; ${hint}`, { vmId: vm.id });
      }
      await running.end({ by: "request" });
    }
    if (this.#records.has(vm.id)) this.#remove(vm);
  }

  /** Resolves when the VM has ended; at once if it has. */
  wait(ref: string, signal: AbortSignal | undefined): Promise<Vm> {
    const { vm } = this.#resolve(ref);
    if (vm.finishedAt !== null) return Promise.resolve(vm);
    const ended = new Promise<Vm>((resolve) => {
      const waiters = this.#waiters.get(vm.id) ?? [];
      this.#waiters.set(vm.id, [...waiters, resolve]);
    });
    return Deadline.after(Number.POSITIVE_INFINITY, signal).race(ended, `the end of VM ${vm.name}`);
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

  #update(record: VmRecord): void {
    this.#records.set(record.vm.id, record);
    this.host.records.updateVm(record);
  }

  #resolve(ref: string): VmRecord {
    const all = [...this.#records.values()].map((record) => ({ id: record.vm.id, name: record.vm.name, record }));
    return resolveRef(all, ref, "vm").record;
  }
}

/** Starts the main process, or goes on with the one that came with the template. */
function startMain(
  clone: Clone,
  spec: ExecSpec | undefined,
  main: Workload,
  deadline: Deadline,
): AgentProcess | undefined {
  if (clone.main !== undefined) return clone.main.handTo(main.consume);
  return spec === undefined ? undefined : clone.agent.exec(spec, main.consume, deadline);
}
