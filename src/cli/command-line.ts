/** From the words of a command line to the command that runs. */
import { parseArguments, readOptions, usageError } from "./arguments.ts";
import { report } from "./report.ts";
import { type AnyOptionValues, type CommandEntry, type OptionSpecs, UNIVERSAL_OPTIONS } from "./specification.ts";
import { nearest } from "./suggest.ts";

const TOP_OPTIONS = {
  ...UNIVERSAL_OPTIONS,
  version: { kind: "flag", short: "v", summary: "Show the version" },
} as const satisfies OptionSpecs;

/** A command found in the tree, the words that name it, and those that follow. */
interface Found {
  entry: CommandEntry;
  name: string;
  rest: readonly string[];
}

/**
 * Runs a command line.
 * @param argv the words after the program's name.
 * @param program how the program was called; as `mayflyd` it is the daemon.
 * @param tree the commands that there are.
 * @returns the exit code. Errors have been said on standard error.
 */
export async function runCommandLine(
  argv: readonly string[],
  program: string,
  tree: readonly CommandEntry[],
): Promise<number> {
  const line = new CommandLine(tree);
  try {
    return await line.run(program.endsWith("mayflyd") ? ["daemon", ...argv] : argv);
  } catch (error) {
    return report(error, line.json);
  }
}

class CommandLine {
  /** Whether errors are to be said as JSON. */
  json = false;

  constructor(readonly tree: readonly CommandEntry[]) {}

  async run(words: readonly string[]): Promise<number> {
    const { options, operands } = readOptions(TOP_OPTIONS, words, "mayfly", true);
    this.json = options["json"] === true;
    const named = options["version"] === true ? ["version"] : operands;
    if (named[0] === "help") return this.#help(named.slice(1));
    if (named.length === 0 || options["help"] === true) return this.#help(named);
    const found = find(this.tree, named);
    if (found.entry.load === undefined) return this.#groupAlone(found);
    return this.#runCommand(found, options);
  }

  async #runCommand({ entry, name, rest }: Found, top: AnyOptionValues): Promise<number> {
    const command = await entry.load?.();
    if (command === undefined) throw usageError(name, "no such command");
    const end = rest.indexOf("--");
    this.json ||= rest.slice(0, end < 0 ? rest.length : end).includes("--json");
    const { options, operands, dashes } = parseArguments(command.spec, UNIVERSAL_OPTIONS, rest, name);
    this.json = top["json"] === true || options["json"] === true;
    if (options["help"] === true) {
      const { showCommandHelp } = await import("./help.ts");
      return showCommandHelp(name, command);
    }
    const host = textOf(options["host"]) ?? textOf(top["host"]);
    return command.run({ options, operands, dashes, global: { host, json: this.json }, tree: this.tree });
  }

  /** A group was named without one of its commands: its help, which is an answer only if it was asked for. */
  async #groupAlone({ name, rest }: Found): Promise<number> {
    const { options } = readOptions(UNIVERSAL_OPTIONS, rest, name, true);
    await this.#help(name.split(" ").slice(1));
    return options["help"] === true ? 0 : 125;
  }

  async #help(words: readonly string[]): Promise<number> {
    const { showCommandHelp, showGroupHelp } = await import("./help.ts");
    if (words.length === 0) return showGroupHelp("mayfly", this.tree, TOP_OPTIONS);
    const { entry, name } = find(this.tree, words);
    if (entry.load !== undefined) return showCommandHelp(name, await entry.load());
    return showGroupHelp(name, entry.children ?? [], UNIVERSAL_OPTIONS);
  }
}

/** The command that words name. @throws MayflyError `invalid_argument` with the nearest known one. */
function find(entries: readonly CommandEntry[], words: readonly string[], path = "mayfly"): Found {
  const [word = "", ...rest] = words;
  const entry = entries.find((candidate) => candidate.name === word || candidate.aliases?.includes(word));
  if (entry === undefined) throw unknownCommand(entries, word, path);
  const name = `${path} ${entry.name}`;
  const [next] = rest;
  if (entry.children === undefined || next === undefined || next.startsWith("-")) return { entry, name, rest };
  return find(entry.children, rest, name);
}

function unknownCommand(entries: readonly CommandEntry[], word: string, path: string): Error {
  const near = nearest(
    word,
    entries.map(({ name }) => name),
  );
  return usageError(
    path,
    `unknown command ${JSON.stringify(word)}${near === undefined ? "" : ` (did you mean ${near}?)`}`,
  );
}

function textOf(value: AnyOptionValues[string]): string | undefined {
  return typeof value === "string" ? value : undefined;
}
