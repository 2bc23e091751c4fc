/** `mayfly template rm`. */
import { openClient } from "../client.ts";
import { forEach } from "../each.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description: "Remove templates that no VM uses.",
  operands: [{ name: "TEMPLATE", kind: "template", many: true }],
  options: { force: { kind: "flag", short: "f", summary: "Also the one that new VMs would take" } },
  examples: [["mayfly template rm -f base", "remove one; the next VM builds it again"]],
  async run({ options, operands, global }) {
    const client = openClient(global);
    return forEach(operands, global.json, (template) => client.templates.remove(template, { force: options.force }));
  },
});
