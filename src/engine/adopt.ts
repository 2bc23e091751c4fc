/**
 * Recovery at start: VMs of the daemon before are adopted (process, QMP, agent), what it had half done is undone, and every
 * QEMU that nobody owns is reaped.
 */
import type { AgentClient } from "../agent/client.ts";
import { MayflyError } from "../contract/errors.ts";
import type { TemplateId } from "../contract/ids.ts";
import { Deadline } from "../sys/deadline.ts";
import { ForeignProcess, identifyProcess, type ProcessIdentity } from "../sys/process.ts";
import { openAgent } from "./clone.ts";
import { LIMITS_MS } from "./config.ts";
import { grantDisks } from "./disks.ts";
import type { Events } from "./events.ts";
import { Holdings } from "./holdings.ts";
import type { Host } from "./host.ts";
import { QemuProcess } from "./qemu-process.ts";
import type { VmRecord } from "./records.ts";
import { openLogs, RunningVm } from "./running-vm.ts";
import type { Vms } from "./vms.ts";
import type { Volumes } from "./volumes.ts";
import { Workload } from "./workload.ts";

const SIGKILL = 9;

/** What recovery works on. */
export interface RecoveryContext {
  host: Host;
  vms: Vms;
  events: Events;
  volumes: Volumes;
}

/** Recovers all of an earlier daemon's VMs. Call it before anything is started. */
export async function recover(context: RecoveryContext): Promise<void> {
  const { host, vms } = context;
  const records = host.records.vms();
  for (const record of records) vms.restore(record);
  const key = (id: ProcessIdentity | undefined) => `${id?.pid} ${id?.startTicks} ${id?.bootId}`;
  const owned = new Set(records.filter((r) => r.vm.finishedAt === null).map((r) => key(r.qemu?.identity)));
  const orphans = host.records.qemus().filter((qemu) => !owned.has(key(qemu.identity)));
  for (const orphan of orphans) QemuProcess.reap(orphan, host.slots, host.records);
  await Promise.all(records.filter((record) => record.vm.finishedAt === null).map((record) => adopt(context, record)));
  host.slots.sweep(endProcess);
}

/** Ends a process that was spawned a moment before its daemon died, too early to be recorded. */
function endProcess(pid: number): void {
  const identity = identifyProcess(pid);
  if (identity === undefined) return;
  using foreign = ForeignProcess.open(identity);
  foreign?.signal(SIGKILL);
  foreign?.waitForEnd(LIMITS_MS.exit);
}

/** Adopts one VM, or records why it could not be. */
async function adopt(context: RecoveryContext, record: VmRecord): Promise<void> {
  const { host, vms, events, volumes } = context;
  const holdings = new Holdings(record.held);
  holdings.add(volumes.disks.adopt(record.vm, record.held.disks));
  const deadline = Deadline.after(LIMITS_MS.adopt);
  const qemu =
    record.qemu === null ? undefined : await QemuProcess.adopt(record.qemu, host.slots, host.records, deadline);
  if (qemu === undefined) {
    const error = new MayflyError("qemu_exited", `QEMU of VM ${record.vm.name} ended while no daemon was running`);
    await holdings.release();
    vms.lost(record, { by: "failure", error });
    return;
  }
  try {
    const running = await qemu.untilExit(reconnect(context, record, { qemu, holdings }, deadline), "being adopted");
    vms.hold(running);
    events.emit("vm.adopted", record.vm.id, record.vm.name);
  } catch (error) {
    await qemu.kill();
    await holdings.release();
    const cause =
      error instanceof MayflyError
        ? error
        : new MayflyError("internal", `Cannot adopt VM ${record.vm.name}: ${error}`, { cause: error });
    vms.lost(record, { by: "failure", error: cause });
  }
}

/** Connects to the agent again: the main process goes on where its logs end, everything else drops its output. */
async function reconnect(
  { host, vms }: RecoveryContext,
  record: VmRecord,
  { qemu, holdings }: { qemu: QemuProcess; holdings: Holdings },
  deadline: Deadline,
): Promise<RunningVm> {
  // Its template may have been removed or damaged since: it runs on what it has mapped.
  const template = { id: record.vm.templateId as TemplateId, memoryPath: record.memoryPath };
  const others = await otherProcesses(record, qemu, deadline);
  const { agent, agentClosed } = openAgent(qemu, deadline);
  const logs = record.vm.autoRemove ? undefined : openLogs(vms.directory(record.vm.id), host.config.logLimitBytes);
  const main = record.main === null ? undefined : new Workload(logs, undefined);
  if (main !== undefined && record.main !== null) {
    const offsets = { output: logs?.stdout.offset ?? 0, error: logs?.stderr.offset ?? 0 };
    const process = agent.attachProcess({ ...record.main, ...offsets, skipGone: true }, main.consume);
    main.bind(process, record.killAtMs ?? undefined);
  }
  grantDisks(qemu.slot, record.held.disks);
  for (const other of others) dropOutput(agent, other);
  await agent.ready;
  return new RunningVm(record.vm.id, { qemu, agent, agentClosed, template, main: undefined }, main, logs, holdings);
}

interface OtherProcess {
  object: number;
  output: number;
  error: number;
}

/** Processes besides the main one: a first connection only asks for them. */
async function otherProcesses(record: VmRecord, qemu: QemuProcess, deadline: Deadline): Promise<OtherProcess[]> {
  const { agent } = openAgent(qemu, deadline);
  const hello = await agent.ready;
  const transfers = hello.objects.filter((object) => object.kind !== "process");
  await Promise.all(transfers.map((object) => agent.releaseObject(object.object, deadline)));
  agent.close();
  return hello.objects
    .filter((object) => object.kind === "process" && object.object !== record.main?.object)
    .map(({ object, outputEnd, errorEnd }) => ({ object, output: outputEnd, error: errorEnd }));
}

/** Their clients went with the daemon: they go on, their output is dropped. */
function dropOutput(agent: AgentClient, other: OtherProcess): void {
  const process = agent.attachProcess({ ...other, pid: 0 }, () => undefined);
  process.exited.then(
    () => process.release(Deadline.after(LIMITS_MS.request)).catch(() => undefined),
    () => undefined,
  );
}
