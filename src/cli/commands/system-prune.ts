/** `mayfly system prune`. */
import { print } from "../../sys/standard-io.ts";
import { openClient } from "../client.ts";
import { confirmed } from "../confirmation.ts";
import { printJson } from "../output.ts";
import { formatBytes } from "../sizes.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description:
    "Remove ended VMs with their logs, templates that fit this host no more, snapshots of directories that no VM has, images whose name has moved on, and the cache of builds. Running VMs, other images and volumes stay.",
  operands: [],
  options: { force: { kind: "flag", short: "f", summary: "Do not ask" } },
  examples: [["mayfly system prune -f", "clean up in a script"]],
  async run({ options, global }) {
    const what =
      "This removes all ended VMs with their logs, templates that fit this host no more, images without a name, and the cache of builds.";
    if (!options.force && !(await confirmed(what, "mayfly system prune --force"))) return 1;
    const { removed, freedBytes } = await openClient(global).system.prune();
    if (global.json) await printJson({ removed, freedBytes });
    else await print(`${removed.map((id) => `${id}\n`).join("")}Freed: ${formatBytes(freedBytes)}\n`);
    return 0;
  },
});
