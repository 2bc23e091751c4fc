/** `mayfly image prune`. */
import { print } from "../../sys/standard-io.ts";
import { openClient } from "../client.ts";
import { confirmed } from "../confirmation.ts";
import { printJson } from "../output.ts";
import { formatBytes } from "../sizes.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description:
    "Remove images whose name has moved to another one, and the cache of builds; with --all every image that no VM and no template uses.",
  operands: [],
  options: {
    all: { kind: "flag", short: "a", summary: "Also images with names" },
    force: { kind: "flag", short: "f", summary: "Do not ask" },
  },
  examples: [["mayfly image prune -af", "whatever is not in use"]],
  async run({ options, global }) {
    const which = options.all ? "all images that no VM and no template uses" : "all images without a name";
    const what = `This removes ${which}, and the cache of builds.`;
    if (!options.force && !(await confirmed(what, "mayfly image prune --force"))) return 1;
    const { removed, freedBytes } = await openClient(global).images.prune({ all: options.all });
    if (global.json) await printJson({ removed, freedBytes });
    else await print(`${removed.map((name) => `${name}\n`).join("")}Freed: ${formatBytes(freedBytes)}\n`);
    return 0;
  },
});
