/** What is in a guest besides its main process: nobody reads it any more, and it must not wait for that. */
import type { AgentClient } from "../agent/client.ts";
import { isTransient } from "../agent/connection.ts";
import type { AgentProcess } from "../agent/process.ts";
import type { AgentHello, KnownObject } from "../agent/results.ts";
import { Deadline } from "../sys/deadline.ts";
import type { GuestObject } from "./capture.ts";
import { LIMITS_MS } from "./config.ts";

/** Whether an object was of use only to who made it: a transfer, or a process that was made to be waited for. */
export function isUnwanted({ kind, object }: KnownObject): boolean {
  return kind !== "process" || isTransient(object);
}

/** Its client is gone: it goes on, its output is dropped, its end forgotten. Call it before the connection stands. */
export function dropOutput(agent: AgentClient, other: GuestObject): AgentProcess {
  const process = agent.attachProcess({ ...other, pid: 0, skipGone: true }, () => undefined);
  process.exited.then(
    () => release(process),
    () => undefined,
  );
  return process;
}

/** Has the agent forget what nobody goes on with: transfers, and processes that are not among those that {@link dropOutput} took. */
export function releaseRest(
  agent: AgentClient,
  { objects }: AgentHello,
  dropped: readonly AgentProcess[],
  main: number | undefined,
): void {
  const ours = new Map(dropped.map((process) => [process.object, process]));
  for (const known of objects) {
    const process = ours.get(known.object);
    if (known.object === main || (process !== undefined && !isUnwanted(known))) continue;
    if (process !== undefined) release(process);
    else agent.releaseObject(known.object, Deadline.after(LIMITS_MS.request)).catch(() => undefined);
  }
}

function release(process: AgentProcess): void {
  process.release(Deadline.after(LIMITS_MS.request)).catch(() => undefined);
}
