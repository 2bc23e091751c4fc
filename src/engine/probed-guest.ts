/** A guest with an application in it, as probes see it: through its agent. */
import type { AgentClient } from "../agent/client.ts";
import type { ExecSpec } from "../agent/requests.ts";
import type { Deadline } from "../sys/deadline.ts";
import { OutputTail } from "./output-tail.ts";
import type { ProbedGuest } from "./probes.ts";

/**
 * The probes' view of a guest.
 * @param process as what and where commands run in it.
 * @param output of the application.
 */
export function probedGuest(agent: AgentClient, process: Omit<ExecSpec, "argv">, output: OutputTail): ProbedGuest {
  return {
    output,
    exec: (command, deadline) => execToEnd(agent, { ...process, argv: command, killTree: true }, deadline),
    connect: () => Promise.reject(new Error("not yet")),
  };
}

async function execToEnd(
  agent: AgentClient,
  spec: ExecSpec,
  deadline: Deadline,
): Promise<{ exitCode: number; output: string }> {
  const tail = new OutputTail();
  const process = agent.exec(spec, tail.take, deadline);
  try {
    const { code, signal } = await deadline.race(process.exited, `the end of ${spec.argv.join(" ")}`);
    return { exitCode: code ?? 128 + (signal ?? 0), output: tail.text };
  } finally {
    await process.release(deadline).catch(() => undefined);
  }
}
