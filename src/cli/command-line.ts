/** From the words of a command line to the command that runs. */
import { parseArguments, readOptions, usageError } from "./arguments.ts";
import { COMMANDS, type CommandEntry } from "./commands.ts";
import { report } from "./report.ts";
import { type Command, type GlobalOptions, type OptionSpecs, UNIVERSAL_OPTIONS } from "./specification.ts";
import { nearest } from "./suggest.ts";

const TOP_OPTIONS = {
  ...UNIVERSAL_OPTIONS,
  version: { kind: "flag", short: "v", summary: "Show the version" },
} as const satisfies OptionSpecs;

/** A command found in the table, with the words that name it. */
interface Found {
  entry: CommandEntry;
  name: string;
  rest: readonly string[];
}

/**
 * Runs a command line.
 * @param argv the words after the program's name.
 * @param program how the program was called; as `mayflyd` it is the daemon.
 * @returns the exit code. Errors have been said on standard error.
 */
export async function runCommandLine(
  argv: readonly string[],
  program: string,
  commands: readonly CommandEntry[] = COMMANDS,
): Promise<number> {
  let json = false;
  try {
    const words = program.endsWith("mayflyd") ? ["daemon", ...argv] : argv;
    const top = readOptions(TOP_OPTIONS, words, "mayfly", true);
    json = top.options["json"] === true;
    if (top.options["version"] === true) top.operands.unshift("version");
    const [first] = top.operands;
    if (first === undefined || top.options["help"] === true || first === "help") {
      return await help(commands, first === "help" ? top.operands.slice(1) : top.operands);
    }
    const found = find(commands, top.operands);
    if (found.entry.load === undefined) return await help(commands, found.name.split(" ").slice(1), found.rest);
    const command = await found.entry.load();
    return await runCommand(command, found, json, top.options["host"], (value) => {
      json = value;
    });
  } catch (error) {
    return report(error, json);
  }
}

async function runCommand(
  command: Command,
  { name, rest }: Found,
  json: boolean,
  host: unknown,
  setJson: (json: boolean) => void,
): Promise<number> {
  const { options, operands } = parseArguments(command.spec, UNIVERSAL_OPTIONS, rest, name);
  if (options["help"] === true) {
    const { showCommandHelp } = await import("./help.ts");
    return showCommandHelp(name, command);
  }
  const global: GlobalOptions = { host: text(options["host"]) ?? text(host), json: json || options["json"] === true };
  setJson(global.json);
  return command.run({ options, operands, global });
}

/** The command that words name. @throws MayflyError `invalid_argument` with the nearest known one. */
function find(commands: readonly CommandEntry[], words: readonly string[], path = "mayfly"): Found {
  const [word = "", ...rest] = words;
  const entry = commands.find((candidate) => candidate.name === word || candidate.aliases?.includes(word));
  if (entry === undefined) {
    const near = nearest(
      word,
      commands.map(({ name }) => name),
    );
    throw usageError(
      path,
      `unknown command ${JSON.stringify(word)}${near === undefined ? "" : ` (did you mean ${near}?)`}`,
    );
  }
  const name = `${path} ${entry.name}`;
  const [next] = rest;
  if (entry.children === undefined || next === undefined || next === "--help" || next === "-h")
    return { entry, name, rest };
  return find(entry.children, rest, name);
}

async function help(
  commands: readonly CommandEntry[],
  words: readonly string[],
  rest: readonly string[] = [],
): Promise<number> {
  const { showCommandHelp, showGroupHelp } = await import("./help.ts");
  const [first] = words;
  if (first === undefined) return showGroupHelp("mayfly", commands, TOP_OPTIONS);
  const { entry, name } = find(commands, words);
  if (entry.load !== undefined) return showCommandHelp(name, await entry.load());
  await showGroupHelp(name, entry.children ?? [], UNIVERSAL_OPTIONS);
  return rest.length > 0 || words.length > 0 ? 0 : 1;
}

function text(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}
