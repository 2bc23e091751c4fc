/**
 * Hooks: what runs in a clone of an application's template after it has been given its identity and before the application goes on.
 * One that fails or takes too long is the end of the clone.
 */
import type { AgentClient } from "../agent/client.ts";
import type { ExecSpec } from "../agent/requests.ts";
import type { DirectoryEntry } from "../agent/results.ts";
import { MayflyError } from "../contract/errors.ts";
import { Deadline } from "../sys/deadline.ts";
import { LIMITS_MS } from "./config.ts";
import { lastLine, OutputTail } from "./output-tail.ts";

/** Directory of an image whose programs are hooks. */
export const HOOK_DIRECTORY = "/etc/mayfly/post-clone.d";
/** Longest that a hook may take unless told, in milliseconds. */
export const HOOK_LIMIT_MS = 10_000;

const MAX_HOOKS = 64;
const TYPE_BITS = 0o170000;
const REGULAR = 0o100000;
const SYMLINK = 0o120000;
const EXECUTE = 0o111;

/** Hooks as they are to run. */
export interface HookPlan {
  /** Programs with their arguments, in order. */
  commands: readonly (readonly string[])[];
  /** As what and where they run. */
  process: Omit<ExecSpec, "argv">;
  /** Longest that each may take, in milliseconds. */
  limitMs: number;
}

/**
 * The hooks of an image, by name: every file of the directory whose name does not begin with a dot. Asked for once, when a template is built.
 * @throws `image_invalid` for one that cannot be executed: whoever put it there expects it to run; `limit_reached` for more than 64.
 */
export async function listHooks(agent: AgentClient, deadline: Deadline): Promise<string[]> {
  const entries: DirectoryEntry[] = [];
  try {
    for await (const entry of agent.list(HOOK_DIRECTORY, deadline)) {
      if (entry.name.startsWith(".")) continue;
      entries.push(entry);
      if (entries.length > MAX_HOOKS) {
        throw new MayflyError("limit_reached", `${HOOK_DIRECTORY} of the image has more than ${MAX_HOOKS} hooks`);
      }
    }
  } catch (error) {
    if (error instanceof MayflyError && error.code === "file_not_found") return [];
    throw error;
  }
  const hooks = entries.sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const hook of hooks) {
    const path = `${HOOK_DIRECTORY}/${hook.name}`;
    const { mode } = (hook.mode & TYPE_BITS) === SYMLINK ? await agent.stat(path, deadline) : hook;
    if ((mode & TYPE_BITS) === REGULAR && (mode & EXECUTE) !== 0) continue;
    const what = (mode & TYPE_BITS) === REGULAR ? "is not executable" : "is no file";
    throw new MayflyError("image_invalid", `The hook ${path} of the image ${what}, so it would not run in clones`, {
      details: { path },
    });
  }
  return hooks.map(({ name }) => `${HOOK_DIRECTORY}/${name}`);
}

/**
 * Runs hooks one after the other.
 * @throws `hook_failed` with the code or signal and the end of the output of the first that fails; whatever the agent's connection says.
 */
export async function runHooks(agent: AgentClient, { commands, ...plan }: HookPlan, deadline: Deadline): Promise<void> {
  for (const command of commands) await runHook(agent, command, plan, deadline);
}

/** Set to 1 for hooks that are rehearsed: nothing that they do is for a clone that anybody has. */
export const REHEARSAL_VARIABLE = "MAYFLY_REHEARSAL";

/**
 * Runs hooks where no clone is made yet, so that what they need is in memory and translated when one is. That they fail is no harm: what they
 * do without may come with a request.
 * @returns why the first that failed did; null: all went well.
 */
export async function rehearseHooks(agent: AgentClient, plan: HookPlan, deadline: Deadline): Promise<string | null> {
  const { process } = plan;
  const env = [...(process.env ?? []), `${REHEARSAL_VARIABLE}=1`];
  try {
    await runHooks(agent, { ...plan, process: { ...process, env } }, deadline);
    return null;
  } catch (error) {
    if (error instanceof MayflyError && error.code === "hook_failed") return error.message;
    throw error;
  }
}

async function runHook(
  agent: AgentClient,
  command: readonly string[],
  { process: spec, limitMs }: Omit<HookPlan, "commands">,
  deadline: Deadline,
): Promise<void> {
  const output = new OutputTail();
  const isLimited = limitMs < deadline.remainingMs;
  const within = deadline.within(limitMs);
  const process = agent.exec({ ...spec, argv: command, hook: true, killTree: true }, output.take, within);
  try {
    const { code, signal } = await within.race(process.exited, "the end of a hook");
    if (code !== 0)
      throw failed(command, code === null ? `was killed by signal ${signal}` : `ended with ${code}`, output);
  } catch (error) {
    if (!(error instanceof MayflyError)) throw error;
    if (error.code === "deadline_exceeded" && isLimited)
      throw failed(command, `did not end within ${limitMs} ms`, output);
    if (error.code === "command_not_found" || error.code === "command_not_executable") {
      throw failed(command, `cannot run (${error.message})`, output);
    }
    throw error;
  } finally {
    // Nobody has to wait for it: what comes after it is carried out after it.
    process.release(Deadline.after(LIMITS_MS.request)).catch(() => undefined);
  }
}

function failed(command: readonly string[], how: string, output: OutputTail): MayflyError {
  const name = command.join(" ").slice(0, 200);
  return new MayflyError("hook_failed", `The hook ${name} ${how}; its output ends with: ${lastLine(output.text)}`, {
    details: { path: command[0] ?? "", outputTail: output.text },
  });
}
