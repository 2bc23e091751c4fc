/** The command line's entry: `mayfly`, and `mayflyd`, which is `mayfly daemon`. */
import { runCommandLine } from "./command-line.ts";

process.exit(await runCommandLine(process.argv.slice(2), process.argv0));
