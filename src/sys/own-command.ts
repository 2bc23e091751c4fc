/** How this program is called: to start it again, and for commands that a person is told to type. */

import { existsSync } from "node:fs";
import { basename, join } from "node:path";

/** Absolute path of what started this: the single-file executable, or `mayfly` of the checkout or package. */
export function ownCommand(): string {
  if (!/^bun(\.exe)?$/.test(basename(process.execPath))) return process.execPath;
  const entry = join(import.meta.dir, "../../mayfly");
  return existsSync(entry) ? entry : "mayfly";
}

/** Whether this program is one file that brings its runtime along. */
function isSingleFile(): boolean {
  return Bun.main.startsWith("/$bunfs/");
}

/** Whether this program is the command line, run from its sources. */
export function runsCommandLine(): boolean {
  return Bun.main === join(import.meta.dir, "../cli/main.ts");
}

/**
 * The beginning of a command line that starts this program again: Bun with its script, or the single-file executable.
 * `small`: with a smaller heap, for what runs for long. `script`: another one than this program's.
 */
export function ownCommandLine(options: { small: boolean; script?: string | undefined }): string[] {
  if (isSingleFile()) return [process.execPath];
  const small = options.small ? ["--smol"] : [];
  return [process.execPath, ...small, "--no-env-file", "--config=/dev/null", options.script ?? Bun.main];
}

/**
 * The environment of what runs for long: without the optimizing compiler, and with machine code for what is run very often only, since both take more memory than
 * they save time in a program that waits most of the time (docs/adr/0028-memory-of-the-daemon.md).
 */
export function smallEnvironment(): Record<string, string | undefined> {
  return {
    BUN_JSC_useDFGJIT: "0",
    BUN_JSC_thresholdForJITAfterWarmUp: "50000",
    BUN_JSC_thresholdForJITSoon: "20000",
    ...process.env,
  };
}
