/** From a request to what the agent starts. */
import type { ExecSpec } from "../agent/requests.ts";
import type { ExecRequest } from "../contract/api.ts";

/** Environment that every process has unless it is told otherwise; docker's defaults. */
const DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** @param killTree kill what the process leaves behind: for main processes, with which their VM ends. */
export function execSpec(
  request: Omit<ExecRequest, "command" | "timeoutMs">,
  command: readonly string[],
  killTree: boolean,
): ExecSpec {
  const [uid = 0, gid = uid === 0 ? 0 : uid] = (request.user ?? "0:0").split(":").map(Number);
  const env: Record<string, string> = {
    PATH: DEFAULT_PATH,
    HOME: uid === 0 ? "/root" : "/",
    ...(request.terminal === undefined ? {} : { TERM: "xterm" }),
    ...request.env,
  };
  return {
    argv: command,
    env: Object.entries(env).map(([name, value]) => `${name}=${value}`),
    cwd: request.workdir ?? "/",
    uid,
    gid,
    stdin: request.stdin === true,
    killTree,
    ...(request.terminal === undefined ? {} : { terminal: request.terminal }),
  };
}
