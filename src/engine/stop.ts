/** Where a template's guest is stopped, which is where each of its clones goes on (docs/adr/0041-where-a-template-stops.md). */
import type { QmpClient } from "../qmp/client.ts";
import { type Deadline, pause } from "../sys/deadline.ts";

/** Attempts, and how long the guest runs before each. All of them together are less than the time for which the agent expects a stop. */
const ATTEMPTS = 8;
const RUN_MS = 5;

/**
 * Stops a VM while its vCPU is in the guest's kernel, where an agent that expects a stop is most of the time. After the last attempt it is
 * stopped wherever it is: its clones are then a little slower, and nothing else.
 */
export async function stopInKernel(qmp: Pick<QmpClient, "execute">, deadline: Deadline): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    // Interrupts that are under way are dealt with meanwhile.
    await pause(RUN_MS);
    await qmp.execute("stop", undefined, deadline);
    const registers = await qmp.execute("human-monitor-command", { "command-line": "info registers" }, deadline);
    if (attempt === ATTEMPTS || !/\bCPL=3\b/.test(String(registers))) return;
    await qmp.execute("cont", undefined, deadline);
  }
}
