/** `mayfly demo`. */
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description: `Set up what is missing, clone 20 VMs from their parent, run a command in each, and show how long each took and what memory
each has to itself.`,
  operands: [],
  options: {},
  examples: [["mayfly demo", "on a fresh machine"]],
  async run({ global }) {
    const { main } = await import("../../../bench/demo.ts");
    return main(global);
  },
});
