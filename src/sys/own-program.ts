/** How to start this program again. */

/** The beginning of its command line: Bun with the script it runs, or the single-file executable. */
export function ownProgram(): string[] {
  const compiled = Bun.main.startsWith("/$bunfs/");
  if (compiled) return [process.execPath];
  return [process.execPath, "--no-env-file", "--config=/dev/null", Bun.main];
}
