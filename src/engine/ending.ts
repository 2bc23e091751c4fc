/** The end of a VM on request: a signal to its main process; or gently: its stop signal, then SIGKILL, then its own end. */
import type { Vm } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import { Deadline } from "../sys/deadline.ts";
import { LIMITS_MS } from "./config.ts";
import type { VmRecord } from "./records.ts";
import { type RunningVm, withEnd } from "./running-vm.ts";
import type { Vms } from "./vms.ts";

const SIGKILL = 9;
const SIGTERM = 15;
/** Between the stop signal and SIGKILL where nobody says otherwise; docker's. */
const DEFAULT_GRACE_MS = 10_000;

/**
 * Ends a VM. Its end is seen by whoever watches it.
 * @param graceMs instead of the VM's own.
 * @param deadline for the first signal.
 */
export async function endGently(
  running: RunningVm,
  { vm, stopGraceMs }: Pick<VmRecord, "vm" | "stopGraceMs">,
  graceMs: number | undefined,
  deadline: Deadline,
): Promise<void> {
  const process = running.main?.process;
  if (process === undefined) {
    await running.end({ by: "request" });
    return;
  }
  await process.signal(vm.stopSignal, false, deadline).catch(() => undefined);
  if (await endsWithin(running, graceMs ?? stopGraceMs ?? DEFAULT_GRACE_MS)) return;
  await process.signal(SIGKILL, true, Deadline.after(LIMITS_MS.request)).catch(() => undefined);
  if (!(await endsWithin(running, LIMITS_MS.request))) await running.end({ by: "request" });
}

function endsWithin(running: RunningVm, ms: number): Promise<boolean> {
  const ended = Deadline.after(ms).race(running.ended, "the VM's end");
  return ended.then(
    () => true,
    () => false,
  );
}

/**
 * Sends a signal to the main process; without one, only SIGKILL and SIGTERM are possible and end the VM. With SIGKILL and the VM's stop
 * signal the restart policy is over. A suspended VM ends where it is.
 */
export async function killVm(vms: Vms, id: string, signal: number, deadline: Deadline): Promise<Vm> {
  await vms.returning(id)?.catch(() => undefined);
  const adoption = vms.adoptions.get(id);
  if (adoption !== undefined && signal === SIGKILL) {
    const { vm } = recordOf(vms, id);
    await adoption.giveUp();
    // One that is removed at its end has no record any more.
    const ended = vms.record(id)?.vm ?? withEnd(vm, { by: "request" });
    if (ended.finishedAt !== null) return ended;
  }
  const record = recordOf(vms, id);
  const { name, state, stopSignal } = record.vm;
  const ends = signal === SIGKILL || signal === stopSignal;
  if (state === "suspended") {
    await vms.drop(id);
    return vms.record(id)?.vm ?? record.vm;
  }
  if (ends && state === "restarting" && vms.runningOf(id)?.main === undefined) {
    await vms.restarts.cancel(id);
    return vms.get(id);
  }
  const running = vms.running(id);
  if (ends) vms.update({ ...record, restart: { ...record.restart, over: true } });
  const process = running.main?.process;
  if (process !== undefined) await process.signal(signal, signal === SIGKILL, deadline);
  else if (state === "restarting") {
    throw new MayflyError("vm_not_running", `Cannot send signal ${signal} to VM ${name}: it is being started again`);
  } else if (signal === SIGKILL || signal === SIGTERM) await running.end({ by: "request" });
  else throw new MayflyError("invalid_argument", `Cannot send signal ${signal} to a VM without a main process`);
  return vms.get(id);
}

/** The VM's stop signal, then SIGKILL after `graceMs` (the VM's own unless given), then the VM's own end. Resolves when it has ended. @throws `vm_not_running` for one that is being started: it would go on. */
export async function stopVm(vms: Vms, id: string, graceMs: number | undefined, deadline: Deadline): Promise<Vm> {
  if (vms.get(id).state === "restarting" && vms.runningOf(id)?.main === undefined) await vms.restarts.cancel(id);
  const record = recordOf(vms, id);
  const running = vms.runningOf(id);
  if (running === undefined && record.vm.state === "creating") {
    throw new MayflyError("vm_not_running", `Cannot stop VM ${record.vm.name}: it is still being started`, {
      vmId: id,
    });
  }
  if (running === undefined) return record.vm;
  const ended = vms.wait(id, undefined);
  vms.update({ ...record, vm: { ...record.vm, state: "stopping" } });
  vms.health.end(id);
  await endGently(running, record, graceMs, deadline);
  return ended;
}

function recordOf(vms: Vms, id: string): VmRecord {
  const record = vms.record(id);
  if (record === undefined) throw new MayflyError("vm_not_found", `There is no VM ${id}`);
  return record;
}
