/** `mayfly kernel rm`. */
import { removeKernel } from "../../setup/kernel-choice.ts";
import { stateDirectory } from "../../sys/directories.ts";
import { forEach } from "../each.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description: "Remove guest kernels that are not in use.",
  operands: [{ name: "NAME", kind: "kernel", many: true }],
  options: {},
  examples: [["sudo mayfly kernel rm 6.1.176-1-3f2a9c01", "remove one"]],
  async run({ operands, global }) {
    const options = { stateDir: stateDirectory(), command: `kernel rm ${operands.join(" ")}` };
    return forEach(operands, global.json, (name) => removeKernel(name, options));
  },
});
