/** What a guest runs before it is asked for anything, so that the first real request finds everything in place. */
import type { AgentClient } from "../agent/client.ts";
import type { ExecSpec } from "../agent/requests.ts";
import { MayflyError } from "../contract/errors.ts";
import type { Deadline } from "../sys/deadline.ts";
import { DEFAULT_PATH } from "./container-plan.ts";

/** Host name of a guest that is nobody's yet. The shortest there is: a clone's own then never shortens a file. */
export const WARM_HOSTNAME = "m";

/** Starts a process with a shell, a pipe for output and its end: the path of nearly every first command. */
export const WARM_COMMAND: ExecSpec = {
  argv: ["sh", "-c", "echo"],
  env: [`PATH=${DEFAULT_PATH}`, "HOME=/root"],
  killTree: true,
};

/** That, and a process without a shell. */
export const WARM_COMMANDS: readonly ExecSpec[] = [WARM_COMMAND, { ...WARM_COMMAND, argv: ["echo", "-n", ""] }];

/** Runs a command to its end, dropping its output. */
export async function runToEnd(agent: AgentClient, spec: ExecSpec, deadline: Deadline): Promise<void> {
  const process = agent.exec(spec, () => undefined, deadline);
  const { code, signal } = await deadline.race(process.exited, "the end of the warm-up command");
  await process.release(deadline);
  if (code === 0) return;
  const how = code === null ? `was killed by signal ${signal}` : `ended with code ${code}`;
  throw new MayflyError("agent_request_failed", `The guest's warm-up command ${spec.argv.join(" ")} ${how}`);
}
