/** `mayfly volume rm`. */
import { openClient } from "../client.ts";
import { forEach } from "../each.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description: "Remove volumes that no VM has, with all that is in them.",
  operands: [{ name: "VOLUME", kind: "volume", many: true }],
  options: {},
  examples: [["mayfly volume rm data", "remove one"]],
  async run({ operands, global }) {
    const client = openClient(global);
    return forEach(operands, global.json, (name) => client.volumes.remove(name));
  },
});
