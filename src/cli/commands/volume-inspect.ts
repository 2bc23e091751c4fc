/** `mayfly volume inspect`. */
import { openClient } from "../client.ts";
import { inspectEach } from "../each.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description: "Show all that is known of volumes, as a JSON array.",
  operands: [{ name: "VOLUME", kind: "volume", many: true }],
  options: {},
  examples: [["mayfly volume inspect data", "one volume"]],
  async run({ operands, global }) {
    const client = openClient(global);
    return inspectEach(operands, global.json, (name) => client.volumes.get(name));
  },
});
