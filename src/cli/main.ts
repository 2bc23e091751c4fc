/** The command line's entry: `mayfly`, and `mayflyd`, which is `mayfly daemon`. */
import { runCommandLine } from "./command-line.ts";
import { COMMANDS } from "./commands.ts";

process.exit(await runCommandLine(process.argv.slice(2), process.argv0, COMMANDS));
