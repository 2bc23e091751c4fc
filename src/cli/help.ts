/** Help texts, made from the commands' definitions. */
import { print } from "../sys/standard-io.ts";
import {
  type Command,
  type CommandEntry,
  type CommandSpec,
  type OptionSpec,
  type OptionSpecs,
  UNIVERSAL_OPTIONS,
} from "./specification.ts";

/** Shows a command's help. @returns exit code 0. */
export async function showCommandHelp(name: string, command: Command): Promise<number> {
  const { spec } = command;
  const examples = spec.examples.flatMap(([line, what]) => [`  # ${what}`, `  ${line}`, ""]);
  const parts = [
    `Usage: ${usageLine(name, spec)}`,
    "",
    spec.description,
    "",
    ...optionTable("Options:", spec.options),
    ...optionTable("Common options:", UNIVERSAL_OPTIONS),
    ...(examples.length === 0 ? [] : ["Examples:", ...examples]),
  ];
  await print(`${parts.join("\n").trimEnd()}\n`);
  return 0;
}

/** Shows the commands of a group. @returns exit code 0. */
export async function showGroupHelp(
  name: string,
  entries: readonly CommandEntry[],
  options: OptionSpecs,
): Promise<number> {
  const width = Math.max(...entries.map((entry) => entry.name.length));
  const sections = [...new Set(entries.map(({ section }) => section ?? "Commands"))];
  const lists = sections.flatMap((section) => [
    `${section}:`,
    ...entries
      .filter((entry) => (entry.section ?? "Commands") === section)
      .map((entry) => `  ${entry.name.padEnd(width)}  ${entry.summary}`),
    "",
  ]);
  const intro = name === "mayfly" ? ["Containers as QEMU microVMs that start from a parent in milliseconds.", ""] : [];
  const example = name === "mayfly" ? ["Example: mayfly run --rm -- uname -r"] : [];
  const more = `Help of a command: ${name} COMMAND --help`;
  const parts = [
    `Usage: ${name} [OPTION...] COMMAND`,
    "",
    ...intro,
    ...lists,
    ...optionTable("Options:", options),
    more,
    ...example,
  ];
  await print(`${parts.join("\n")}\n`);
  return 0;
}

/** The line after `Usage:`. */
export function usageLine(name: string, spec: Pick<CommandSpec, "operands" | "usage">): string {
  if (spec.usage !== undefined) return `${name} [OPTION...] ${spec.usage}`;
  const operands = spec.operands.map((operand) => {
    if (operand.kind === "command")
      return operand.optional ? `[[--] ${operand.name} [ARG...]]` : `[--] ${operand.name} [ARG...]`;
    const many = operand.many ? ` [${operand.name}...]` : "";
    return operand.optional ? `[${operand.name}${operand.many ? "..." : ""}]` : `${operand.name}${many}`;
  });
  return [name, "[OPTION...]", ...operands].join(" ");
}

function optionTable(title: string, options: OptionSpecs): string[] {
  const rows = Object.entries(options).map(([name, spec]) => [optionNames(name, spec), spec.summary] as const);
  if (rows.length === 0) return [];
  const width = Math.max(...rows.map(([names]) => names.length));
  return [title, ...rows.map(([names, summary]) => `  ${names.padEnd(width)}  ${summary}`), ""];
}

function optionNames(name: string, spec: OptionSpec): string {
  const short = spec.short === undefined ? "    " : `-${spec.short}, `;
  return `${short}--${name}${spec.kind === "flag" ? "" : ` ${spec.value}`}`;
}
