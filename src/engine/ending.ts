/** The gentle end of a VM: its stop signal, then SIGKILL, then its own end. */
import { Deadline } from "../sys/deadline.ts";
import { LIMITS_MS } from "./config.ts";
import type { VmRecord } from "./records.ts";
import type { RunningVm } from "./running-vm.ts";

const SIGKILL = 9;
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
