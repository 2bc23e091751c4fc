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
 * first interrupts of clones come there. After the last attempt it is stopped wherever it is: its clones are then a little slower, and nothing else.
 */
export async function stopInKernel(qmp: Pick<QmpClient, "execute">, deadline: Deadline): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    // Interrupts that are under way are dealt with meanwhile.
    await pause(RUN_MS);
    await qmp.execute("stop", undefined, deadline);
    const registers = await qmp.execute("human-monitor-command", { "command-line": "info registers" }, deadline);
    if (attempt === ATTEMPTS || !isElsewhere(String(registers))) return;
    await qmp.execute("cont", undefined, deadline);
  }
}

/** Whether a vCPU is known to be in user space, or not to take interrupts. */
function isElsewhere(registers: string): boolean {
  const flags = /\bRFL=([0-9a-f]+)/.exec(registers)?.[1];
  return /\bCPL=3\b/.test(registers) || (flags !== undefined && (Number.parseInt(flags, 16) & INTERRUPTS) === 0);
}
