/** Options that `run` and `exec` share, and the request that they make. */
import type { ExecRequest } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import { currentTerminalSize } from "./attached.ts";
import { parseDurationMs } from "./sizes.ts";
import type { OptionSpecs, OptionValues } from "./specification.ts";

/** Options of a process in a VM. */
export const PROCESS_OPTIONS = {
  interactive: { kind: "flag", short: "i", summary: "Forward standard input" },
  tty: { kind: "flag", short: "t", summary: "Give the process a terminal" },
  detach: { kind: "flag", short: "d", summary: "Leave it running in the background" },
  env: {
    kind: "list",
    short: "e",
    value: "NAME=VALUE",
    summary: "Set an environment variable; NAME alone takes it from here",
  },
  "env-file": { kind: "list", value: "FILE", complete: "file", summary: "Read environment variables from a file" },
  workdir: { kind: "value", short: "w", value: "DIR", summary: "Working directory" },
  user: { kind: "value", short: "u", value: "USER[:GROUP]", summary: "User and group, by name or number" },
  timeout: { kind: "value", value: "DURATION", summary: "Kill the process after this time, e.g. 30s; exit code 124" },
  "detach-keys": { kind: "value", value: "KEYS", summary: "Keys that leave a process with a terminal (ctrl-p,ctrl-q)" },
} as const satisfies OptionSpecs;

/** The part of a request that these options make. @throws MayflyError `invalid_argument`. */
export async function processRequest(
  options: OptionValues<typeof PROCESS_OPTIONS>,
): Promise<Omit<ExecRequest, "command">> {
  const request: Omit<ExecRequest, "command"> = {};
  const env = await environment(options.env, options["env-file"]);
  if (Object.keys(env).length > 0) request.env = env;
  if (options.workdir !== undefined) request.workdir = options.workdir;
  if (options.user !== undefined) request.user = options.user;
  if (options.interactive) request.stdin = true;
  if (options.tty) request.terminal = currentTerminalSize();
  if (options.timeout !== undefined) request.timeoutMs = Math.max(1, parseDurationMs("--timeout", options.timeout));
  return request;
}

async function environment(entries: readonly string[], files: readonly string[]): Promise<Record<string, string>> {
  const env: Record<string, string> = {};
  if (files.length > 0) {
    const { readOptional } = await import("../sys/paths.ts");
    for (const file of files) {
      const text = await readOptional(file);
      if (text === undefined)
        throw new MayflyError("invalid_argument", `Cannot read --env-file ${file}: there is no such file`);
      for (const line of text.split("\n")) {
        const entry = line.replace(/\r$/, "").trimStart();
        if (entry !== "" && !entry.startsWith("#")) addVariable(env, entry, `--env-file ${file}`);
      }
    }
  }
  for (const entry of entries) addVariable(env, entry, "--env");
  return env;
}

function addVariable(env: Record<string, string>, entry: string, origin: string): void {
  const equals = entry.indexOf("=");
  const name = equals < 0 ? entry : entry.slice(0, equals);
  if (name === "")
    throw new MayflyError("invalid_argument", `${origin} has ${JSON.stringify(entry)}, which names no variable`);
  const value = equals < 0 ? process.env[name] : entry.slice(equals + 1);
  if (value !== undefined) env[name] = value;
}
