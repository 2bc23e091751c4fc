/** `mayfly kill`. */
import { openClient } from "../client.ts";
import { forEach } from "../each.ts";
import { parseSignal, SIGNALS } from "../signals.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description:
    "Send a signal to the main process of VMs. KILL ends a VM without a main process too. KILL and the VM's stop signal also end its restart policy.",
  operands: [{ name: "VM", kind: "vm", many: true }],
  options: {
    signal: {
      kind: "value",
      short: "s",
      value: "SIGNAL",
      complete: Object.keys(SIGNALS),
      summary: "Name or number (KILL)",
    },
  },
  examples: [
    ["mayfly kill web", "end it at once"],
    ["mayfly kill -s HUP web db", "have them read their settings again"],
  ],
  async run({ options, operands, global }) {
    const signal = parseSignal("--signal", options.signal ?? "KILL");
    const client = openClient(global);
    return forEach(operands, global.json, (vm) => client.vms.kill(vm, signal));
  },
});
