/** How this program is called: to start it again, and for commands that a person is told to type. */

import { existsSync } from "node:fs";
import { basename, join } from "node:path";

/** Absolute path of what started this: the single-file executable, or `mayfly` of the checkout or package. */
export function ownCommand(): string {
  if (!/^bun(\.exe)?$/.test(basename(process.execPath))) return process.execPath;
  const entry = join(import.meta.dir, "../../mayfly");
  return existsSync(entry) ? entry : "mayfly";
}

/**
 * The beginning of a command line that starts this program again: Bun with its script, or the single-file executable.
 * `small`: with a smaller heap, for what runs for long.
 */
export function ownCommandLine(options: { small: boolean }): string[] {
  if (Bun.main.startsWith("/$bunfs/")) return [process.execPath];
  const small = options.small ? ["--smol"] : [];
  return [process.execPath, ...small, "--no-env-file", "--config=/dev/null", Bun.main];
}
