/** `mayfly inspect`. */
import { openClient } from "../client.ts";
import { inspectEach } from "../each.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description:
    "Show all that is known of VMs, as a JSON array: state, exit, and how long each stage of the start took.",
  operands: [{ name: "VM", kind: "vm", many: true }],
  options: {},
  examples: [
    ["mayfly inspect web", "one VM"],
    ["mayfly inspect web | jq '.[0].clone'", "how it was started"],
  ],
  async run({ operands, global }) {
    const client = openClient(global);
    return inspectEach(operands, global.json, (vm) => client.vms.get(vm));
  },
});
