/** `mayfly volume prune`. */
import { print } from "../../sys/standard-io.ts";
import { openClient } from "../client.ts";
import { confirmed } from "../confirmation.ts";
import { printJson } from "../output.ts";
import { formatBytes } from "../sizes.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description: "Remove the volumes that no VM has and that nobody named; with --all, named ones too.",
  operands: [],
  options: {
    all: { kind: "flag", short: "a", summary: "Named volumes too" },
    force: { kind: "flag", short: "f", summary: "Do not ask" },
  },
  examples: [["mayfly volume prune -f", "clean up in a script"]],
  async run({ options, global }) {
    const what = `This removes all ${options.all ? "" : "unnamed "}volumes that no VM has, with all that is in them.`;
    const remedy = `mayfly volume prune ${options.all ? "--all " : ""}--force`;
    if (!options.force && !(await confirmed(what, remedy))) return 1;
    const { removed, freedBytes } = await openClient(global).volumes.prune({ all: options.all });
    if (global.json) await printJson({ removed, freedBytes });
    else await print(`${removed.map((name) => `${name}\n`).join("")}Freed: ${formatBytes(freedBytes)}\n`);
    return 0;
  },
});
