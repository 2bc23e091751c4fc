/** `mayfly image inspect`. */
import { openClient } from "../client.ts";
import { inspectEach } from "../each.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description: "Show all that is known of images, as a JSON array, with the OCI configuration whole (`document`).",
  operands: [{ name: "IMAGE", kind: "image", many: true }],
  options: {},
  examples: [["mayfly image inspect debian", "one image"]],
  async run({ operands, global }) {
    const client = openClient(global);
    return inspectEach(operands, global.json, (ref) => client.images.get(ref));
  },
});
