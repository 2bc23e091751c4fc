/** Errors for people and programs, and the exit codes they end with. */
import { KINDS, MayflyError, problemDocument } from "../contract/errors.ts";
import { BrokenPipe, printError } from "../sys/standard-io.ts";

/** Exit codes of docker and the shells that commands share. */
export const EXIT = {
  timeout: 124,
  failure: 125,
  notExecutable: 126,
  notFound: 127,
  signalBase: 128,
  brokenPipe: 141,
} as const;

/** Exit code of the CLI for an error: 126 and 127 for a guest's command, otherwise its kind's. */
export function exitCodeOf(error: unknown): number {
  if (error instanceof BrokenPipe) return EXIT.brokenPipe;
  if (!(error instanceof MayflyError)) return EXIT.failure;
  if (error.code === "command_not_found") return EXIT.notFound;
  if (error.code === "command_not_executable") return EXIT.notExecutable;
  return KINDS[error.kind].exitCode;
}

/** Says an error on standard error, as text or as a problem document. @returns the exit code. */
export async function report(error: unknown, json: boolean): Promise<number> {
  if (!(error instanceof BrokenPipe)) await printError(json ? asProblem(error) : describeError(error));
  return exitCodeOf(error);
}

/** An error as people read it: what could not be done, what is known of the cause, and what puts it right. */
export function describeError(error: unknown): string {
  if (!(error instanceof MayflyError)) {
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    return `mayfly: unexpected error: ${text}\n`;
  }
  const { problems, stderrTail, consoleTail, remedy } = error.details;
  const lines = [`mayfly: ${error.message}`];
  if (problems !== undefined && problems.length > 1) lines.push(...problems.map((problem) => `  - ${problem}`));
  if (stderrTail !== undefined) lines.push(...quote("standard error", stderrTail));
  if (consoleTail !== undefined) lines.push(...quote("console", consoleTail));
  if (remedy !== undefined) lines.push(`  hint: ${remedy}`);
  return `${lines.join("\n")}\n`;
}

const QUOTED_LINES = 15;

function quote(what: string, text: string): string[] {
  const lines = text.trimEnd().split("\n").slice(-QUOTED_LINES);
  return lines.join("") === "" ? [] : [`  ${what}, last lines:`, ...lines.map((line) => `    ${line.trimEnd()}`)];
}

function asProblem(error: unknown): string {
  const known =
    error instanceof MayflyError
      ? error
      : new MayflyError("internal", error instanceof Error ? error.message : String(error));
  return `${JSON.stringify(problemDocument(known))}\n`;
}
