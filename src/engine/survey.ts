/** The agent's survey program, run in a VM outside of its container. */
import type { AgentClient } from "../agent/client.ts";
import { MayflyError } from "../contract/errors.ts";
import { Deadline } from "../sys/deadline.ts";
import { LIMITS_MS } from "./config.ts";

/** The agent's program, which is PID 1 of the guest as well. */
const PROGRAM = "/init";
/** A guest may have any number of processes and files; more than this of them is not looked at. */
const LIMIT_BYTES = 32 << 20;
const SIGKILL = 9;

/**
 * Runs a survey to its end. It is killed when the deadline has passed.
 * @param isFrozen whether the workload is frozen.
 * @returns what it has printed.
 * @throws `limit_reached` for too much, `agent_request_failed` when it fails, `deadline_exceeded`, `cancelled`.
 */
export async function runSurvey(
  agent: AgentClient,
  what: "processes" | "changes",
  deadline: Deadline,
  isFrozen = false,
): Promise<Uint8Array> {
  const chunks: Buffer[] = [];
  let length = 0;
  const kill = () => void process.signal(SIGKILL, true, Deadline.after(LIMITS_MS.request)).catch(() => undefined);
  const take = (_channel: 2 | 3, chunk: Uint8Array) => {
    length += chunk.length;
    if (length <= LIMIT_BYTES) chunks.push(Buffer.from(chunk));
    else if (length - chunk.length <= LIMIT_BYTES) kill();
  };
  const process = agent.execTransient(
    { argv: [PROGRAM, what], outside: true, killTree: true, hook: isFrozen },
    take,
    deadline,
  );
  try {
    const { code } = await deadline.race(process.exited, `the survey of ${what}`);
    if (length > LIMIT_BYTES) {
      throw new MayflyError(
        "limit_reached",
        `Cannot list the ${what} of the VM: they are more than ${LIMIT_BYTES} bytes`,
      );
    }
    if (code !== 0) {
      throw new MayflyError("agent_request_failed", `Cannot list the ${what} of the VM: the survey ended with ${code}`);
    }
    return Buffer.concat(chunks);
  } finally {
    // One that still runs is killed by this.
    process.release(Deadline.after(LIMITS_MS.request)).catch(() => undefined);
  }
}
