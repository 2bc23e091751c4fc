/** `mayfly rm`. */
import { openClient } from "../client.ts";
import { forEach } from "../each.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description: "Remove VMs with their logs.",
  operands: [{ name: "VM", kind: "vm", many: true }],
  options: { force: { kind: "flag", short: "f", summary: "End those that run first" } },
  examples: [
    ["mayfly rm web", "remove an ended VM"],
    ["mayfly rm -f web db", "also while they run"],
  ],
  async run({ options, operands, global }) {
    const client = openClient(global);
    return forEach(operands, global.json, (vm) => client.vms.remove(vm, { force: options.force }));
  },
});
