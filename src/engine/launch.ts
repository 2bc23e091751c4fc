/** How a VM is launched: its clone made, its main process on its way, and what is recorded of both. */
import type { AgentProcess } from "../agent/process.ts";
import type { ExecSpec } from "../agent/requests.ts";
import type { CreateVmRequest, Vm } from "../contract/api.ts";
import type { Deadline } from "../sys/deadline.ts";
import type { CapturedHooks } from "./captured-vm.ts";
import type { Clone } from "./clone.ts";
import { type HealthPlan, startingHealth } from "./health.ts";
import type { Holdings } from "./holdings.ts";
import type { OutputSink } from "./interface.ts";
import type { ContainerRecord, RestartRecord, VmRecord } from "./records.ts";
import { closeLogs, RunningVm } from "./running-vm.ts";
import type { Started } from "./start.ts";
import { baseNow, type LogBase, type OutputLogs, Workload } from "./workload.ts";

/** How an admitted VM is started. */
export interface Launch {
  /** As it was made: what a restart policy starts again when the QEMU is gone. */
  request: CreateVmRequest;
  /** Makes the clone; see `start.ts`. */
  start: () => Promise<Started>;
  /** The main process to start; absent: there is none, or it came with the clone. */
  main: ExecSpec | undefined;
  /** The main process when it is started again in the same VM; absent: there is none. */
  again: ExecSpec | undefined;
  container: ContainerRecord | null;
  health: HealthPlan | undefined;
  /** Offsets in the streams of a main process that came with the clone: what is printed from there on is logged where the logs end now. */
  goesOnAt?: { output: number; error: number };
  /** Hooks that it has from the VM that it is a copy of. */
  hooks?: CapturedHooks | null;
  /** It was suspended: since when it runs and how healthy it is have not changed. */
  resumed?: boolean;
  /** Given back when the VM has ended, or could not be started. */
  holdings: Holdings;
}

/** What a launch goes on from: nothing, or what an earlier QEMU of the VM has left. */
export interface LaunchFrom {
  vm: Vm;
  openLogs: () => OutputLogs | undefined;
  sink: OutputSink | undefined;
  /** Milliseconds since 1970; null: no time limit. */
  killAtMs: number | null;
  restart: RestartRecord;
  /** Records the VM. What it throws fails the launch. */
  keep: (record: VmRecord) => void;
}

/** A VM that runs, and its record. */
export interface Launched {
  running: RunningVm;
  main: Workload | undefined;
  record: VmRecord;
}

/** Starts a clone's main process, and records the VM. The clone is gone if that fails. @throws `command_not_found`, `qemu_exited` ... */
export async function launchIn(
  { clone, path, clock, machineId }: Started,
  launch: Launch,
  from: LaunchFrom,
  deadline: Deadline,
): Promise<Launched> {
  const readyMs = clock.elapsedMs;
  const { killAtMs, restart } = from;
  await using cleanup = new AsyncDisposableStack();
  cleanup.defer(() => clone.qemu.kill());
  const logs = from.openLogs();
  cleanup.defer(() => closeLogs(logs));
  const main =
    launch.main === undefined && clone.main === undefined
      ? undefined
      : new Workload(logs, from.sink, baseFor(launch, logs));
  const process = main && startMain(clone, launch.main, main, deadline);
  if (main && process) main.bind(process, killAtMs ?? undefined);
  const startedAt = (launch.resumed === true ? from.vm.startedAt : null) ?? new Date().toISOString();
  const health = launch.health === undefined ? null : startingHealth();
  const pid = process === undefined ? 0 : await clone.qemu.untilExit(process.pid, "starting the command");
  const vm: Vm = {
    ...from.vm,
    state: "running",
    templateId: clone.template.id,
    startedAt,
    pid: clone.qemu.pid,
    exitCode: null,
    exitSignal: null,
    error: null,
    health: launch.resumed === true ? from.vm.health : health,
    clone: { path, readyMs, stages: { ...clock.stages } },
  };
  const record: VmRecord = {
    vm,
    qemu: clone.qemu.record,
    main: main && process ? { object: process.object, pid, base: main.base } : null,
    killAtMs,
    machineId,
    again: launch.again ?? null,
    ...(launch.hooks == null ? {} : { hooks: launch.hooks }),
    memoryPath: clone.template.memoryPath,
    container: launch.container,
    held: launch.holdings.record,
    restart: { ...restart, nextAtMs: null },
    stopGraceMs: launch.request.stopGraceMs ?? null,
    health: launch.health ?? null,
  };
  from.keep(record);
  // Only now: what one prints that does not come to be is in no log, since whoever goes on from the same state prints it again.
  if (main !== undefined) clone.main?.handTo(main.consume);
  cleanup.move();
  return { running: new RunningVm(vm.id, clone, main, logs, launch.holdings), main, record };
}

/** Where in the logs the streams of the main process begin, which may be before what is there. */
function baseFor({ goesOnAt }: Launch, logs: OutputLogs | undefined): LogBase {
  const { stdout, stderr } = baseNow(logs);
  return { stdout: stdout - (goesOnAt?.output ?? 0), stderr: stderr - (goesOnAt?.error ?? 0) };
}

/** Starts the main process, unless one has come with the clone, which is handed over later. */
function startMain(
  clone: Clone,
  spec: ExecSpec | undefined,
  main: Workload,
  deadline: Deadline,
): AgentProcess | undefined {
  if (clone.main !== undefined) return clone.main.process;
  return spec === undefined ? undefined : clone.agent.exec(spec, main.consume, deadline);
}
