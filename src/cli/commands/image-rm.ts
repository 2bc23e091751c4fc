/** `mayfly image rm`. */
import { openClient } from "../client.ts";
import { forEach } from "../each.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description: "Remove images that no VM uses.",
  operands: [{ name: "IMAGE", kind: "image", many: true }],
  options: {},
  examples: [["mayfly image rm debian", "remove one"]],
  async run({ operands, global }) {
    const client = openClient(global);
    return forEach(operands, global.json, (image) => client.images.remove(image));
  },
});
