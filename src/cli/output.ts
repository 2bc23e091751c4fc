/** What commands print: tables without borders, JSON documents, JSON lines. */
import Table from "cli-table3";
import type { VmChange } from "../contract/api.ts";
import { print } from "../sys/standard-io.ts";

const NO_BORDERS = Object.fromEntries(
  ["top", "bottom", "left", "right", "mid", "middle"].flatMap((side) =>
    ["", "-mid", "-left", "-right"].map((corner) => [`${side}${corner}`, ""]),
  ),
);

/** A table as docker prints it: a heading in capitals, columns three blanks apart. */
export function formatTable(heading: readonly string[], rows: readonly (readonly string[])[]): string {
  const table = new Table({
    head: [...heading],
    chars: { ...NO_BORDERS, middle: "   " },
    style: { head: [], border: [], "padding-left": 0, "padding-right": 0 },
  });
  for (const row of rows) table.push(row.map(oneLine));
  return `${table
    .toString()
    .split("\n")
    .map((line) => line.trimEnd())
    .join("\n")}\n`;
}

const LETTERS = { added: "A", changed: "C", deleted: "D" } as const;

/** A changed file as a line. */
export function changeLine({ kind, path }: VmChange): string {
  return `${LETTERS[kind]} ${oneLine(path)}\n`;
}

/** Text from a guest or a user, safe for one line of a terminal. */
export function oneLine(text: string): string {
  return text.replace(/\p{Cc}/gu, (character) =>
    JSON.stringify(character)
      .slice(1, -1)
      .replace(/^\u007f$/, "\\u007f"),
  );
}

/** Prints a table. */
export async function printTable(heading: readonly string[], rows: readonly (readonly string[])[]): Promise<void> {
  await print(formatTable(heading, rows));
}

/** Prints one JSON document. */
export async function printJson(document: unknown): Promise<void> {
  await print(`${JSON.stringify(document, undefined, 2)}\n`);
}

/** Prints one JSON document on a line of its own. */
export async function printJsonLine(document: unknown): Promise<void> {
  await print(`${JSON.stringify(document)}\n`);
}

/** Rows of names and values, aligned. */
export function formatFacts(facts: readonly (readonly [name: string, value: string])[]): string {
  const width = Math.max(...facts.map(([name]) => name.length));
  return facts.map(([name, value]) => `${`${name}:`.padEnd(width + 2)}${oneLine(value)}\n`).join("");
}
