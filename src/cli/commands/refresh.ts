/** `mayfly refresh`. */
import type { RefreshResult } from "../../contract/api.ts";
import { printError } from "../../sys/standard-io.ts";
import { openClient } from "../client.ts";
import { forEach } from "../each.ts";
import { formatBytes } from "../sizes.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description: `Give memory that running VMs do not use back to the host: what their guests have freed, and what they keep of files only to read it faster. A guest
sees as much memory as before, and its processes notice nothing but some short stops.`,
  operands: [{ name: "VM", kind: "vm", many: true }],
  options: {
    verbose: { kind: "flag", short: "v", summary: "Say how much the host has back, and how long the VM stood still" },
  },
  examples: [
    ["mayfly refresh web", "after it has been busy"],
    ["mayfly refresh -v web", "and say what that gave"],
  ],
  run: ({ options, operands, global }) => {
    const client = openClient(global);
    return forEach(operands, global.json, async (vm) => {
      const result = await client.vms.refresh(vm);
      if (options.verbose && !global.json) await printError(describe(result));
      return result;
    });
  },
});

function describe({ name, returnedBytes, uniqueMemoryBytes, stoppedMs, longestStopMs }: RefreshResult): string {
  const stops = `stood still for ${stoppedMs.toFixed(1)} ms, ${longestStopMs.toFixed(1)} ms at most at a time`;
  return `${name} gave ${formatBytes(returnedBytes)} back, has ${formatBytes(uniqueMemoryBytes)}, ${stops}\n`;
}
