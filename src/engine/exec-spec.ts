/** From a request to what the agent starts. */
import type { AgentClient } from "../agent/client.ts";
import type { ExecSpec } from "../agent/requests.ts";
import type { ExecRequest } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import type { Deadline } from "../sys/deadline.ts";
import { containerExec, DEFAULT_PATH } from "./container-plan.ts";
import type { ContainerRecord } from "./records.ts";
import { type Accounts, type ResolvedUser, resolveUser } from "./users.ts";

/** /etc/passwd and /etc/group are read up to this size. */
const ACCOUNTS_LIMIT_BYTES = 1 << 20;

/**
 * A process beside a VM's main one.
 * @throws `user_not_found`, looked up in the VM as it is now.
 */
export async function execSpec(
  agent: AgentClient,
  request: ExecRequest,
  vm: { hostname: string; container: ContainerRecord | null },
  deadline: Deadline,
): Promise<ExecSpec> {
  const { hostname, container } = vm;
  if (container === null) return baseSpec(request, request.command, false);
  const { defaults, user } = container;
  const resolved =
    request.user === undefined ? user : resolveUser(request.user, await accountsOf(agent, request.user, deadline));
  return { ...containerExec(defaults, resolved, hostname, request), argv: request.command };
}

/**
 * A process in the base guest, which has no accounts: users are numbers there, each with a group of its own.
 * @param killTree kill what the process leaves behind: for main processes, with which their VM ends.
 */
export function baseSpec(
  request: Omit<ExecRequest, "command" | "timeoutMs">,
  command: readonly string[],
  killTree: boolean,
): ExecSpec {
  const { uid, gid } = baseUser(request.user ?? "0:0");
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

function baseUser(user: string): ResolvedUser {
  if (user === "root") return baseUser("0:0");
  return resolveUser(user.includes(":") ? user : `${user}:${user}`, { passwd: "", group: "" });
}

/** The VM's own accounts; a root without these files has none. */
async function accountsOf(agent: AgentClient, user: string, deadline: Deadline): Promise<Accounts> {
  if (/^\d+:\d+$/.test(user)) return { passwd: "", group: "" };
  const [passwd, group] = await Promise.all([
    readText(agent, "/etc/passwd", deadline),
    readText(agent, "/etc/group", deadline),
  ]);
  return { passwd, group };
}

/** The beginning of a text file of a VM; empty if there is none. @throws `file_operation_failed`. */
export async function readText(agent: AgentClient, path: string, deadline: Deadline): Promise<string> {
  const chunks: Uint8Array[] = [];
  const read = agent.readFile(path, (chunk) => void chunks.push(chunk.slice()), deadline, {
    length: ACCOUNTS_LIMIT_BYTES,
  });
  try {
    await read.opened;
    await read.done;
  } catch (error) {
    if (error instanceof MayflyError && error.code === "file_not_found") return "";
    throw error;
  }
  return Buffer.concat(chunks).toString("utf8");
}
