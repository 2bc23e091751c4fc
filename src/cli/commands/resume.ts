/** `mayfly resume`. */
import { openClient } from "../client.ts";
import { forEach } from "../each.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description: "Bring suspended VMs back. One that runs stays as it is.",
  operands: [{ name: "VM", kind: "vm", many: true }],
  options: {},
  examples: [["mayfly resume web", "go on where it was"]],
  run: ({ operands, global }) => {
    const client = openClient(global);
    return forEach(operands, global.json, (vm) => client.vms.resume(vm));
  },
});
