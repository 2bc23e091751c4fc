/** Where a template's guest is stopped, which is where each of its clones goes on (docs/adr/0041-where-a-template-stops.md). */
import type { QmpClient } from "../qmp/client.ts";
import { type Deadline, pause } from "../sys/deadline.ts";

/** Attempts, and how long the guest runs before each. All of them together are less than the time for which the agent expects a stop. */
const ATTEMPTS = 8;
const RUN_MS = 5;

/** RFLAGS.IF: the guest takes interrupts. */
const INTERRUPTS = 0x200;

/**
 * Stops a VM while its vCPU is in the guest's kernel and takes interrupts, as that of an agent that expects a stop does most of the time: then the
 * first interrupts of clones come there. And while its timer has not fired: one that is to fire can be put off, an interrupt of it that waits cannot.
 * @returns whether it is stopped there. If not, its agent expected no stop any more, or it was elsewhere at each attempt.
 */
export async function stopInKernel(qmp: Pick<QmpClient, "execute">, deadline: Deadline): Promise<boolean> {
  const ask = async (what: string) =>
    String(await qmp.execute("human-monitor-command", { "command-line": what }, deadline));
  for (let attempt = 1; ; attempt++) {
    // Interrupts that are under way are dealt with meanwhile.
    await pause(RUN_MS);
    await qmp.execute("stop", undefined, deadline);
    const registers = await ask("info registers");
    if (isIdle(registers)) return false;
    if (!isElsewhere(registers) && !hasTimerFired(await ask("info lapic"))) return true;
    if (attempt === ATTEMPTS) return false;
    await qmp.execute("cont", undefined, deadline);
  }
}

/** Whether a vCPU is known to wait for an interrupt. */
function isIdle(registers: string): boolean {
  return /\bHLT=1\b/.test(registers);
}

/** Whether a vCPU is known to be in user space, or not to take interrupts. */
function isElsewhere(registers: string): boolean {
  const flags = /\bRFL=([0-9a-f]+)/.exec(registers)?.[1];
  return /\bCPL=3\b/.test(registers) || (flags !== undefined && (Number.parseInt(flags, 16) & INTERRUPTS) === 0);
}

/** Whether a local APIC is known to have an interrupt of its timer for the vCPU. */
function hasTimerFired(lapic: string): boolean {
  const vector = /^LVTT\b.*\(vec (\d+)\)/m.exec(lapic)?.[1];
  const waiting = /^IRR\b(.*)$/m.exec(lapic)?.[1] ?? "";
  return vector !== undefined && waiting.trim().split(/\s+/).includes(vector);
}
