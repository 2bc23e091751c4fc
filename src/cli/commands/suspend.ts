/** `mayfly suspend`. */
import { openClient } from "../client.ts";
import { forEach } from "../each.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description: `Put running VMs away: as checkpoint --and-stop. A suspended VM keeps its name, ports and logs and takes no memory. It comes back by resume,
or by itself when a connection or an exec arrives.`,
  operands: [{ name: "VM", kind: "vm", many: true }],
  options: {},
  examples: [
    ["mayfly suspend web", "until somebody wants it"],
    ["mayfly ps --filter status=suspended", "what is put away"],
  ],
  run: ({ operands, global }) => {
    const client = openClient(global);
    return forEach(operands, global.json, (vm) => client.vms.checkpoint(vm, { stop: true }));
  },
});
