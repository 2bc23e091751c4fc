/** Asking before something is removed. */
import { MayflyError } from "../contract/errors.ts";
import { printError, standardInput } from "../sys/standard-io.ts";
import { isTerminal } from "../sys/terminal.ts";

/**
 * Asks on the terminal whether to go on.
 * @param what is about to be done, as a sentence.
 * @param remedy the command that does it without asking.
 * @throws MayflyError `invalid_argument` when nobody can be asked.
 */
export async function confirmed(what: string, remedy: string): Promise<boolean> {
  if (!isTerminal(0)) {
    throw new MayflyError("invalid_argument", "Cannot ask whether to remove things: standard input is no terminal", {
      details: { remedy },
    });
  }
  await printError(`${what} Go on? [y/N] `);
  for await (const chunk of standardInput()) return /^y(es)?$/i.test(new TextDecoder().decode(chunk).trim());
  return false;
}
