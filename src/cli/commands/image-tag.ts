/** `mayfly tag` and `mayfly image tag`. */
import { openClient } from "../client.ts";
import { printJson } from "../output.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description: "Give an image one more name. If another image has it, the name moves.",
  operands: [
    { name: "IMAGE", kind: "image" },
    { name: "NAME", kind: "none" },
  ],
  options: {},
  examples: [["mayfly tag app:1 localhost:5000/app:1", "the name that it has in a registry"]],
  async run({ operands, global }) {
    const [image = "", name = ""] = operands;
    const tagged = await openClient(global).images.tag(image, name);
    if (global.json) await printJson(tagged);
    return 0;
  },
});
