/** `mayfly system prune`. */
import { MayflyError } from "../../contract/errors.ts";
import { print, printError, standardInput } from "../../sys/standard-io.ts";
import { isTerminal } from "../../sys/terminal.ts";
import { openClient } from "../client.ts";
import { printJson } from "../output.ts";
import { formatBytes } from "../sizes.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description:
    "Remove ended VMs with their logs, and templates that fit this host no more. Running VMs and images stay.",
  operands: [],
  options: { force: { kind: "flag", short: "f", summary: "Do not ask" } },
  examples: [["mayfly system prune -f", "clean up in a script"]],
  async run({ options, global }) {
    if (!options.force && !(await confirmed())) return 1;
    const { removed, freedBytes } = await openClient(global).system.prune();
    if (global.json) await printJson({ removed, freedBytes });
    else await print(`${removed.map((id) => `${id}\n`).join("")}Freed: ${formatBytes(freedBytes)}\n`);
    return 0;
  },
});

async function confirmed(): Promise<boolean> {
  if (!isTerminal(0)) {
    throw new MayflyError("invalid_argument", "Cannot ask whether to remove things: standard input is no terminal", {
      details: { remedy: "mayfly system prune --force" },
    });
  }
  await printError(
    "This removes all ended VMs with their logs, and templates that fit this host no more. Go on? [y/N] ",
  );
  for await (const chunk of standardInput()) return /^y(es)?$/i.test(new TextDecoder().decode(chunk).trim());
  return false;
}
