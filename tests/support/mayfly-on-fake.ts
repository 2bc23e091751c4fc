/** The command line with a daemon over the fake engine: as `src/cli/main.ts`, so that it starts itself as the daemon. */
import { runCommandLine } from "../../src/cli/command-line.ts";
import { daemonCommand } from "../../src/cli/commands/daemon.ts";
import { COMMANDS } from "../../src/cli/commands.ts";
import { hostEngine } from "./host-processes.ts";

const commands = COMMANDS.map((entry) =>
  entry.name === "daemon" ? { ...entry, load: async () => daemonCommand(async () => async () => hostEngine()) } : entry,
);

process.exit(await runCommandLine(process.argv.slice(2), process.argv0, commands));
