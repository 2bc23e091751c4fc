/** `mayfly daemon` and nothing else: what the daemon is when other commands start it (sys/program-bundle.ts makes one file of it). */
import { runCommandLine } from "./command-line.ts";

const load = async () => (await import("./commands/daemon.ts")).command;

process.exit(
  await runCommandLine(process.argv.slice(2), process.argv0, [{ name: "daemon", summary: "Serve VMs", load }]),
);
