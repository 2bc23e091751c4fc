/** `mayfly image rm`. */
import { openClient } from "../client.ts";
import { forEach } from "../each.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description: `Take names away, and with its last name the image, unless a VM runs on it or a template needs it. By the beginning of an id
(IMAGE ID of images) an image goes whole; if it has several names, only with --force.`,
  operands: [{ name: "IMAGE", kind: "image", many: true }],
  options: { force: { kind: "flag", short: "f", summary: "All names of an image given by its id" } },
  examples: [["mayfly rmi debian:12", "a name, and the image if it was the last"]],
  async run({ options, operands, global }) {
    const client = openClient(global);
    return forEach(operands, global.json, (image) => client.images.remove(image, { force: options.force }));
  },
});
