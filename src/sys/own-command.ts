/** How to start this program again. */

/** The command line's beginning: Bun with its script, or the single-file executable. */
export function ownCommand(): string[] {
  const compiled = Bun.main.startsWith("/$bunfs/");
  if (compiled) return [process.execPath];
  return [process.execPath, "--no-env-file", "--config=/dev/null", Bun.main];
}
