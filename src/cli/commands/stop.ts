/** `mayfly stop`. */
import { openClient } from "../client.ts";
import { forEach } from "../each.ts";
import { parseDurationMs } from "../sizes.ts";
import { defineCommand } from "../specification.ts";

/** VMs that are being stopped at the same time: each may take its whole grace. */
const AT_ONCE = 50;

export const command = defineCommand({
  description: `Send the stop signal (SIGTERM unless the image or --stop-signal says otherwise) to the main process of VMs and wait for their
end; SIGKILL follows after a time. A restart policy does not start them again.`,
  operands: [{ name: "VM", kind: "vm", many: true }],
  options: {
    time: {
      kind: "value",
      short: "t",
      value: "DURATION",
      summary: "Time before SIGKILL, e.g. 30 or 500ms (the VM's --stop-timeout, or 10)",
    },
  },
  examples: [["mayfly stop -t 30 web", "give it half a minute"]],
  async run({ options, operands, global }) {
    const graceMs = options.time === undefined ? undefined : parseDurationMs("--time", options.time);
    const client = openClient(global);
    return forEach(operands, global.json, (vm) => client.vms.stop(vm, graceMs), AT_ONCE);
  },
});
