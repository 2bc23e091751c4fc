/** `mayfly template inspect`. */
import { openClient } from "../client.ts";
import { inspectEach } from "../each.ts";
import { withLineage } from "../lineage.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description: "Show all that is known of templates, as a JSON array.",
  operands: [{ name: "TEMPLATE", kind: "template", many: true }],
  options: {},
  examples: [["mayfly template inspect base", "one template"]],
  async run({ operands, global }) {
    const client = openClient(global);
    return inspectEach(operands, global.json, (ref) =>
      client.templates.get(ref).then((found) => withLineage(client, found)),
    );
  },
});
