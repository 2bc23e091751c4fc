/**
 * Recovery at start: VMs of the daemon before are adopted (process, QMP, agent), what it had half done is undone, and every
 * QEMU that nobody owns is reaped.
 */
import type { AgentClient } from "../agent/client.ts";
import type { Vm } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import type { TemplateId } from "../contract/ids.ts";
import { Deadline } from "../sys/deadline.ts";
import { hostCpuCount } from "../sys/host.ts";
import { ForeignProcess, identifyProcess, type ProcessIdentity } from "../sys/process.ts";
import type { GuestObject } from "./capture.ts";
import { openAgent } from "./clone.ts";
import { LIMITS_MS } from "./config.ts";
import { grantDisks } from "./disks.ts";
import type { Events } from "./events.ts";
import { Gate } from "./gate.ts";
import { Holdings } from "./holdings.ts";
import type { Host } from "./host.ts";
import { identityRequest } from "./identity.ts";
import { dropOutput, isUnwanted } from "./other-processes.ts";
import { Ports } from "./ports.ts";
import { QemuProcess } from "./qemu-process.ts";
import type { VmRecord } from "./records.ts";
import { identityOf } from "./restore.ts";
import { closeLogs, openLogs, RunningVm } from "./running-vm.ts";
import type { Vms } from "./vms.ts";
import type { Volumes } from "./volumes.ts";
import { type OutputLogs, Workload } from "./workload.ts";

const SIGKILL = 9;

/** What recovery works on. */
export interface RecoveryContext {
  host: Host;
  vms: Vms;
  events: Events;
  volumes: Volumes;
}

/**
 * Recovers all of an earlier daemon's VMs. Call it before anything is started. Those that have not answered within a few seconds go on being adopted
 * afterwards (`Vms.adoptions`): they may be slow, or keep silent, and no daemon waits for that.
 */
export async function recover(context: RecoveryContext): Promise<void> {
  const { host, vms } = context;
  host.records.sweepRestarts();
  const records = host.records.vms();
  for (const record of records) vms.restore(record);
  const key = (id: ProcessIdentity | undefined) => `${id?.pid} ${id?.startTicks} ${id?.bootId}`;
  const owned = new Set(records.filter((r) => r.vm.finishedAt === null).map((r) => key(r.qemu?.identity)));
  const orphans = host.records.qemus().filter((qemu) => !owned.has(key(qemu.identity)));
  for (const orphan of orphans) QemuProcess.reap(orphan, host.slots, host.records);
  // A thousand guests that answer at once answer late: each has its time when it is its turn.
  const turns = new Gate(hostCpuCount() + 1);
  for (const record of records) if (record.vm.finishedAt === null) await adopt(context, turns, record);
  host.slots.sweep(endProcess);
  const all = Promise.all([...vms.adoptions.values()].map(({ ended }) => ended));
  await Deadline.after(LIMITS_MS.adoptions)
    .race(all, "the answers of all VMs")
    .catch(() => undefined);
}

/** Ends a process that was spawned a moment before its daemon died, too early to be recorded. */
function endProcess(pid: number): void {
  const identity = identifyProcess(pid);
  if (identity === undefined) return;
  using foreign = ForeignProcess.open(identity);
  foreign?.signal(SIGKILL);
  foreign?.waitForEnd(LIMITS_MS.exit);
}

/** Begins to adopt one VM, or records why it cannot be. */
async function adopt(context: RecoveryContext, turns: Gate, record: VmRecord): Promise<void> {
  const { host, vms, volumes } = context;
  const { vm } = record;
  if (vm.state === "restarting" && record.qemu === null) {
    vms.restarts.resume(record);
    return;
  }
  const holdings = new Holdings(record.held);
  holdings.add(volumes.disks.adopt(vm, record.held.disks));
  if (vm.state === "suspended") {
    await takeSuspended(context, record, holdings);
    return;
  }
  const qemu = record.qemu === null ? undefined : QemuProcess.adopt(record.qemu, host.slots, host.records);
  if (qemu === undefined) {
    const error = new MayflyError("qemu_exited", `QEMU of VM ${vm.name} ended while no daemon was running`);
    await holdings.release();
    vms.lost(record, error);
    return;
  }
  listen(context, vm, holdings);
  new Adoption(context, record, { qemu, holdings, turns });
}

/** What there is of a VM before it has answered. */
interface AdoptionParts {
  qemu: QemuProcess;
  holdings: Holdings;
  turns: Gate;
}

/** A VM of an earlier daemon that has not answered this one yet, among `Vms.adoptions` until it has: it may stand still, or its host may have no time for it. It goes on meanwhile. */
export class Adoption {
  readonly #letGo = new AbortController();
  #isUnwanted = false;
  /** Resolves when the VM has answered and is held, or its QEMU has ended, or it was left for the next daemon. */
  readonly ended: Promise<void>;

  constructor(
    private readonly context: RecoveryContext,
    private readonly record: VmRecord,
    private readonly parts: AdoptionParts,
  ) {
    const { adoptions } = context.vms;
    adoptions.set(record.vm.id, this);
    this.ended = this.#run().finally(() => adoptions.delete(record.vm.id));
    this.ended.catch(() => undefined);
  }

  /** Nobody wants it any more: its QEMU is ended. Resolves when it has been adopted or is gone. */
  async giveUp(): Promise<void> {
    this.#isUnwanted = true;
    await this.parts.qemu.kill();
    await this.ended;
  }

  /** Leaves it for the next daemon. */
  async letGo(): Promise<void> {
    this.parts.qemu.letGo();
    this.#letGo.abort();
    await this.ended;
  }

  async #run(): Promise<void> {
    const { vms, events } = this.context;
    const { vm } = this.record;
    const { qemu, holdings } = this.parts;
    const { signal } = this.#letGo;
    try {
      const running = await qemu.untilExit(this.#inTurn(signal), "being adopted");
      if (signal.aborted) {
        running.letGo();
        return;
      }
      holdings.open(running.agent);
      vms.hold(running);
      events.emit("vm.adopted", vm.id, vm.name);
      goOn(vms, this.record, running);
    } catch (error) {
      if (signal.aborted) {
        holdings.letGo();
        return;
      }
      await qemu.kill();
      await holdings.release();
      if (this.#isUnwanted) vms.settle(this.record, { by: "request" });
      else vms.lost(this.record, cannotAdopt(vm, error));
    }
  }

  /** Asks it when it is its turn. One that keeps silent has it for a second, and goes on beside the others. */
  async #inTurn(signal: AbortSignal): Promise<RunningVm> {
    const place = await this.parts.turns.enterBy(Deadline.after(Number.POSITIVE_INFINITY, signal), "its turn");
    const leave = () => place[Symbol.dispose]();
    const timer = setTimeout(leave, LIMITS_MS.adoptionTurn);
    try {
      const deadline = Deadline.after(this.context.host.config.adoptionMs, signal);
      return await reconnect(this.context, this.record, this.parts, deadline);
    } finally {
      clearTimeout(timer);
      leave();
    }
  }
}

function cannotAdopt(vm: Vm, error: unknown): MayflyError {
  if (error instanceof MayflyError) return error;
  return new MayflyError("internal", `Cannot adopt VM ${vm.name}: ${error}`, { cause: error });
}

/** A suspended VM holds what it has held. One that was on its way back with volumes cannot: its snapshot does not fit them any more. */
async function takeSuspended(context: RecoveryContext, record: VmRecord, holdings: Holdings): Promise<void> {
  const { vms } = context;
  const { id, name } = record.vm;
  vms.parked.set(id, holdings);
  if (record.isReturning === true) {
    const why = `VM ${name} was being resumed when the daemon ended, and may have written to its volumes`;
    await vms.drop(id, new MayflyError("qemu_exited", why, { vmId: id }));
    return;
  }
  listen(context, record.vm, holdings);
}

/** Listens again on a VM's ports. One that somebody else has taken meanwhile is no reason to end the VM. */
function listen({ events }: RecoveryContext, vm: Vm, holdings: Holdings): void {
  if (vm.ports.length === 0) return;
  try {
    holdings.add(new Ports(vm.ports));
  } catch (error) {
    if (!(error instanceof MayflyError)) throw error;
    events.emit("vm.ports_lost", vm.id, vm.name, { reason: error.message });
  }
}

/** Finishes what the daemon before has begun with a VM: a start of its main process, or its end. */
function goOn(vms: Vms, { vm, main }: VmRecord, running: RunningVm): void {
  if (vm.state === "stopping") void vms.stop(vm.id, undefined, Deadline.after(LIMITS_MS.request));
  if (vm.state !== "restarting") return;
  const record = vms.record(vm.id);
  if (running.main !== undefined) vms.restarts.runs(running, main?.pid ?? 0);
  else if (record !== undefined) vms.restarts.resume(record);
}

/** Connects to the agent again: the main process goes on where its logs end, everything else drops its output. */
async function reconnect(
  { host, vms }: RecoveryContext,
  record: VmRecord,
  { qemu, holdings }: AdoptionParts,
  deadline: Deadline,
): Promise<RunningVm> {
  // Its template may have been removed or damaged since: it runs on what it has mapped.
  const template = { id: record.vm.templateId as TemplateId, memoryPath: record.memoryPath };
  // Its daemon may have died while it stood still.
  await (await qemu.qmp(deadline)).execute("cont", undefined, deadline);
  const { others, knowsMain } = await objectsOf(record, qemu, deadline);
  using undo = new DisposableStack();
  const { agent, agentClosed } = openAgent(qemu, deadline);
  undo.defer(() => agent.close());
  const logs = record.vm.autoRemove ? undefined : openLogs(vms.directory(record.vm.id), host.config.logLimitBytes);
  undo.defer(() => closeLogs(logs));
  // A start that was recorded and never asked for is still to come.
  const isRunning = record.main !== null && (knowsMain || record.vm.state !== "restarting");
  const main = isRunning && record.main !== null ? goOnWith(agent, record.main, record.killAtMs, logs) : undefined;
  grantDisks(qemu.slot, record.held.disks);
  for (const other of others) dropOutput(agent, other);
  const { frozen, identityPending } = await agent.ready;
  if (frozen || identityPending) {
    const identified = agent.identity(identityRequest(identityOf(record)), deadline);
    await Promise.all([identified, agent.thaw(deadline)]);
  }
  undo.move();
  return new RunningVm(record.vm.id, { qemu, agent, agentClosed, template, main: undefined }, main, logs, holdings);
}

/** The main process of before, from the offsets at which its logs end. */
function goOnWith(
  agent: AgentClient,
  { base, ...main }: NonNullable<VmRecord["main"]>,
  killAtMs: number | null,
  logs: OutputLogs | undefined,
): Workload {
  const workload = new Workload(logs, undefined, base);
  const kept = (name: "stdout" | "stderr") => Math.max(0, (logs?.[name].offset ?? 0) - base[name]);
  const offsets = { output: kept("stdout"), error: kept("stderr") };
  const process = agent.attachProcess({ ...main, ...offsets, skipGone: true }, workload.consume);
  workload.bind(process, killAtMs ?? undefined);
  return workload;
}

/** What is in the guest besides the main process, and whether that is: a first connection only asks for it, and ends what nobody wants any more. */
async function objectsOf(
  record: VmRecord,
  qemu: QemuProcess,
  deadline: Deadline,
): Promise<{ others: GuestObject[]; knowsMain: boolean }> {
  using undo = new DisposableStack();
  const { agent } = openAgent(qemu, deadline);
  undo.defer(() => agent.close());
  const { objects } = await agent.ready;
  await Promise.all(objects.filter(isUnwanted).map(({ object }) => agent.releaseObject(object, deadline)));
  const processes = objects.filter((object) => !isUnwanted(object));
  const others = processes
    .filter(({ object }) => object !== record.main?.object)
    .map(({ object, outputEnd, errorEnd }) => ({ object, output: outputEnd, error: errorEnd }));
  return { others, knowsMain: processes.length > others.length };
}
