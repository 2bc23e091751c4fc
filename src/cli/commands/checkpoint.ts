/** `mayfly checkpoint`. */
import { print, printError } from "../../sys/standard-io.ts";
import { describeTimes } from "../capture-times.ts";
import { openClient } from "../client.ts";
import { printJson } from "../output.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description: `Write the state of a running VM into a snapshot: its devices, the memory that it has written, its disks. The VM goes on, unless it is to be
suspended. Without NAME the snapshot goes by its id, which is printed.`,
  operands: [
    { name: "VM", kind: "vm" },
    { name: "NAME", kind: "none", optional: true },
  ],
  options: {
    "and-stop": { kind: "flag", summary: "Suspend the VM: it takes no memory until it is resumed" },
    verbose: { kind: "flag", short: "v", summary: "Say how long the VM stood still" },
  },
  examples: [
    ["mayfly checkpoint web before-update", "keep what it is now"],
    ["mayfly restore before-update", "and go back to it, when the VM has ended"],
    ["mayfly run -d --snapshot before-update -p 8081:8080", "or start another VM from there"],
  ],
  async run({ options, operands, global }) {
    const [vm = "", name] = operands;
    const request = { ...(name === undefined ? {} : { name }), ...(options["and-stop"] ? { stop: true } : {}) };
    const snapshot = await openClient(global).vms.checkpoint(vm, request);
    if (options.verbose && !global.json) await printError(`${snapshot.vmName} ${describeTimes(snapshot.times)}\n`);
    if (global.json) await printJson(snapshot);
    else await print(`${snapshot.id}\n`);
    return 0;
  },
});
