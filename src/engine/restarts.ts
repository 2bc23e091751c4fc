/**
 * VMs that are started again by their policy. When the main process has ended, another is started in the same VM and container; when the
 * QEMU is gone, another one is cloned for the same VM. What is about to happen is recorded before it does, so that a daemon that dies
 * meanwhile is followed by one that goes on.
 */
import type { Vm } from "../contract/api.ts";
import { type ErrorKind, MayflyError, problemDocument } from "../contract/errors.ts";
import type { Clock } from "../sys/clock.ts";
import { Deadline } from "../sys/deadline.ts";
import { type EngineConfig, LIMITS_MS } from "./config.ts";
import type { Events } from "./events.ts";
import { startingHealth } from "./health.ts";
import type { HealthChecks } from "./health-checks.ts";
import type { ExitStatus } from "./interface.ts";
import type { Launch } from "./launch.ts";
import type { Metrics } from "./metrics.ts";
import type { Records, RestartInstructions, VmRecord } from "./records.ts";
import { outlivesHost, pauseBeforeRestart } from "./restart-policy.ts";
import { asMayflyError, type RunningVm, type VmEnd } from "./running-vm.ts";
import { TIMED_OUT, type Workload } from "./workload.ts";

/** What another try does not change. */
const LASTING_KINDS: ReadonlySet<ErrorKind> = new Set(["invalid_argument", "not_found", "permission_denied"]);
/** Exit code of a VM that failed. */
const FAILED = 255;

/** What restarts need of the VMs. */
export interface RestartedVms {
  record(id: string): VmRecord | undefined;
  update(record: VmRecord): void;
  /** The VM while it has a QEMU. */
  runningOf(id: string): RunningVm | undefined;
  /** Records and tells the end of a VM without a QEMU. */
  settle(record: VmRecord, end: VmEnd): void;
  /** How a VM whose QEMU is gone is started again. */
  readonly relaunch: Relaunch | undefined;
  /** Starts a VM without a QEMU as it was made. @throws what starting throws; its record is as it was then. */
  startAgain(record: VmRecord, launch: Launch, deadline: Deadline): Promise<void>;
}

/** What restarts work with. */
export interface RestartParts {
  host: { records: Pick<Records, "restartOf">; config: Pick<EngineConfig, "restartPausesMs"> };
  vms: RestartedVms;
  health: HealthChecks;
  clock: Clock;
  events: Events;
  metrics: Metrics;
}

/** A start that is waited for, or under way. */
interface Pending {
  cancelTimer: () => void;
  abort: AbortController;
  work: Promise<void>;
}

/** Makes the launch of a VM that was there before, from its request. @throws what the host lacks by now. */
export type Relaunch = (vm: Vm, request: RestartInstructions["request"], deadline: Deadline) => Promise<Launch>;

/** The restarts of all VMs. */
export class Restarts {
  readonly #pending = new Map<string, Pending>();
  #held: string[] | undefined = [];

  constructor(private readonly parts: RestartParts) {}

  /** A main process has ended by itself: whether its VM goes on, and if so, when its next one starts. */
  afterExit(running: RunningVm, main: Workload, { exitCode, signal }: ExitStatus): boolean {
    const record = this.parts.vms.record(running.id);
    if (record === undefined || main.timedOut) return false;
    const pauseMs = this.#pauseFor(record, exitCode, ranMs(record.vm));
    if (pauseMs === undefined) return false;
    this.parts.health.end(running.id);
    const vm = { ...record.vm, exitCode, exitSignal: signal };
    this.#plan({ ...record, main: null, vm }, pauseMs, "exit");
    return true;
  }

  /** A VM has failed, and its QEMU is gone: whether another one is to be started for it, and if so, when. */
  afterFailure(record: VmRecord, error: MayflyError, ran = ranMs(record.vm)): boolean {
    if (LASTING_KINDS.has(error.kind) || error.code === "command_not_executable") return false;
    const pauseMs = this.#pauseFor(record, FAILED, ran);
    if (pauseMs === undefined) return false;
    const ended = { pid: null, exitCode: FAILED, exitSignal: 0, error: problemDocument(error) };
    const nothing = { qemu: null, main: null, held: { disks: {}, volumes: [] } };
    this.#plan({ ...record, ...nothing, vm: { ...record.vm, ...ended } }, pauseMs, "failure");
    return true;
  }

  /** A VM's QEMU went with its host: whether it is started on the host as it is up again. */
  afterReboot(record: VmRecord, error: MayflyError): boolean {
    return outlivesHost(record.vm.restart) && this.afterFailure(record, error);
  }

  /** Goes on with a start that an earlier daemon has planned. */
  resume(record: VmRecord): void {
    this.#wait(record);
  }

  /** From now on planned starts happen: all that they need is there. */
  release(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const id of held) {
      const record = this.parts.vms.record(id);
      if (record?.vm.state === "restarting") this.#wait(record);
    }
  }

  /** The user ends a VM that is about to be started: it has ended with its last exit. If it runs already, nothing. */
  async cancel(id: string): Promise<void> {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    pending?.cancelTimer();
    pending?.abort.abort();
    await pending?.work;
    const record = this.parts.vms.record(id);
    const running = this.parts.vms.runningOf(id);
    if (record?.vm.state !== "restarting" || running?.main !== undefined) return;
    const { exitCode, exitSignal } = record.vm;
    await this.#endFor(record, { exitCode: exitCode ?? FAILED, signal: exitSignal ?? 0 });
  }

  /** Plans nothing more: the next daemon goes on. Resolves when nothing is under way. */
  async letGo(): Promise<void> {
    const all = [...this.#pending.values()];
    this.#pending.clear();
    for (const { cancelTimer, abort } of all) {
      cancelTimer();
      abort.abort();
    }
    await Promise.all(all.map(({ work }) => work));
  }

  /** The pause before the next start; undefined: there is none. */
  #pauseFor({ vm, restart, killAtMs }: VmRecord, exitCode: number, ran: number): number | undefined {
    if (restart.over || vm.state === "stopping" || (killAtMs !== null && Date.now() >= killAtMs)) return undefined;
    const ended = { exitCode, ranMs: ran, restartCount: vm.restartCount, lastPauseMs: restart.pauseMs };
    return pauseBeforeRestart(vm.restart, ended, this.parts.host.config.restartPausesMs);
  }

  #plan(record: VmRecord, pauseMs: number, cause: "exit" | "failure"): void {
    const { vm, restart } = record;
    const planned: VmRecord = {
      ...record,
      vm: { ...vm, state: "restarting", restartCount: vm.restartCount + 1 },
      restart: { ...restart, pauseMs, nextAtMs: Date.now() + pauseMs },
    };
    this.parts.vms.update(planned);
    this.parts.metrics.restarted(cause);
    const { exitCode, restartCount } = planned.vm;
    this.parts.events.emit("vm.restarting", vm.id, vm.name, { cause, exitCode, restartCount, pauseMs });
    this.#wait(planned);
  }

  #wait({ vm, restart, killAtMs }: VmRecord): void {
    if (this.#held !== undefined) {
      this.#held.push(vm.id);
      return;
    }
    const atMs = Math.min(restart.nextAtMs ?? 0, killAtMs ?? Number.POSITIVE_INFINITY);
    const pending: Pending = {
      cancelTimer: this.parts.clock.after(Math.max(0, atMs - Date.now()), () => {
        pending.work = this.#start(vm.id, pending);
      }),
      abort: new AbortController(),
      work: Promise.resolve(),
    };
    this.#pending.set(vm.id, pending);
  }

  /** The pause is over. */
  async #start(id: string, pending: Pending): Promise<void> {
    const record = this.parts.vms.record(id);
    if (record === undefined) return;
    try {
      if (record.killAtMs !== null && Date.now() >= record.killAtMs) {
        await this.#endFor(record, { exitCode: TIMED_OUT, signal: 0 });
        return;
      }
      const running = this.parts.vms.runningOf(id);
      if (running === undefined) await this.#startVm(record, pending.abort.signal);
      else {
        while (running.standing !== undefined) await running.standing;
        if (!running.isEnding && !pending.abort.signal.aborted) this.#startMain(record, running);
      }
    } finally {
      if (this.#pending.get(id) === pending) this.#pending.delete(id);
    }
  }

  async #endFor(record: VmRecord, status: ExitStatus): Promise<void> {
    const end: VmEnd = { by: "exit", status };
    const running = this.parts.vms.runningOf(record.vm.id);
    if (running === undefined) this.parts.vms.settle(record, end);
    else await running.end(end);
  }

  /** Another main process in the VM as it is. */
  #startMain(record: VmRecord, running: RunningVm): void {
    const spec = this.parts.host.records.restartOf(record.vm.id)?.main ?? undefined;
    if (spec === undefined) {
      const error = new MayflyError("internal", `Nothing is recorded of the main process of VM ${record.vm.name}`);
      void running.end({ by: "failure", error });
      return;
    }
    const main = running.startMain(spec, record.killAtMs, Deadline.after(LIMITS_MS.request));
    const { process } = main;
    if (process === undefined) return;
    const health = record.vm.health === null ? null : startingHealth();
    const vm = { ...record.vm, startedAt: new Date().toISOString(), health };
    // The request leaves when this turn ends: a daemon that finds this record finds out whether it was carried out.
    this.parts.vms.update({ ...record, vm, main: { object: process.object, pid: 0, base: main.base } });
    process.pid.then(
      (pid) => this.runs(running, pid),
      // The VM's watch sees it as well, and ends the VM.
      () => undefined,
    );
  }

  /** A main process that was started again runs. */
  runs(running: RunningVm, pid: number): void {
    const record = this.parts.vms.record(running.id);
    if (record?.vm.state !== "restarting" || record.main === null) return;
    const vm: Vm = { ...record.vm, state: "running", exitCode: null, exitSignal: null, error: null };
    this.parts.vms.update({
      ...record,
      vm,
      main: { ...record.main, pid },
      restart: { ...record.restart, nextAtMs: null },
    });
    this.parts.events.emit("vm.running", vm.id, vm.name, { restartCount: vm.restartCount });
    this.parts.health.begin(running);
  }

  /** Another QEMU for the VM. A start that fails for a reason that may pass is tried again after the next pause. */
  async #startVm(record: VmRecord, signal: AbortSignal): Promise<void> {
    const { id, name } = record.vm;
    try {
      const instructions = this.parts.host.records.restartOf(id);
      const { relaunch } = this.parts.vms;
      if (instructions === undefined || relaunch === undefined) {
        throw new MayflyError("vm_not_found", `Cannot start VM ${name} again: nothing is recorded of how it was made`);
      }
      const deadline = Deadline.after(LIMITS_MS.revival, signal);
      const launch = await relaunch(record.vm, instructions.request, deadline);
      await this.parts.vms.startAgain(record, launch, deadline);
    } catch (thrown) {
      const error = asMayflyError(thrown);
      const now = this.parts.vms.record(id);
      // It has not run at all: the pauses grow.
      if (now === undefined || signal.aborted || this.afterFailure(now, error, 0)) return;
      this.parts.vms.settle(now, { by: "failure", error });
    }
  }
}

/** Milliseconds since the main process of a VM was started. */
function ranMs({ startedAt }: Vm): number {
  return startedAt === null ? 0 : Date.now() - Date.parse(startedAt);
}
