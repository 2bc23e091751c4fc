/** `mayfly snapshot prune`. */
import { print } from "../../sys/standard-io.ts";
import { openClient } from "../client.ts";
import { confirmed } from "../confirmation.ts";
import { printJson } from "../output.ts";
import { formatBytes } from "../sizes.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description:
    "Remove the snapshots without a name that no VM waits in and that nothing was started from; with --all, named ones too.",
  operands: [],
  options: {
    all: { kind: "flag", short: "a", summary: "Named snapshots too" },
    force: { kind: "flag", short: "f", summary: "Do not ask" },
  },
  examples: [["mayfly snapshot prune -af", "whatever is not in use"]],
  async run({ options, global }) {
    const what = `This removes all ${options.all ? "" : "unnamed "}snapshots that nothing needs.`;
    const remedy = `mayfly snapshot prune ${options.all ? "--all " : ""}--force`;
    if (!options.force && !(await confirmed(what, remedy))) return 1;
    const { removed, freedBytes } = await openClient(global).snapshots.prune({ all: options.all });
    if (global.json) await printJson({ removed, freedBytes });
    else await print(`${removed.map((name) => `${name}\n`).join("")}Freed: ${formatBytes(freedBytes)}\n`);
    return 0;
  },
});
