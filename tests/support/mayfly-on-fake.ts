/**
 * The command line with a daemon over the fake engine: as `src/cli/main.ts`, so that it starts itself as the daemon. The
 * engine notes its process in FAKE_PID_FILE. FAKE_START=fail makes the start fail, `crash` ends it without a word.
 */
import { appendFileSync } from "node:fs";
import { runCommandLine } from "../../src/cli/command-line.ts";
import { daemonCommand } from "../../src/cli/commands/daemon.ts";
import { COMMANDS } from "../../src/cli/commands.ts";
import { MayflyError } from "../../src/contract/errors.ts";
import { hostEngine } from "./host-processes.ts";

async function openFake() {
  const { FAKE_PID_FILE, FAKE_START } = process.env;
  if (FAKE_START === "crash") {
    console.error("the fake crashes");
    process.exit(3);
  }
  if (FAKE_START === "fail") {
    throw new MayflyError("setup_required", "Mayfly is not set up here", { details: { remedy: "mayfly setup" } });
  }
  if (FAKE_PID_FILE !== undefined) appendFileSync(FAKE_PID_FILE, `${process.pid}\n`);
  return hostEngine();
}

const commands = COMMANDS.map((entry) =>
  entry.name === "daemon" ? { ...entry, load: async () => daemonCommand(async () => openFake) } : entry,
);

process.exit(await runCommandLine(process.argv.slice(2), process.argv0, commands));
