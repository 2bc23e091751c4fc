/** `mayfly restore`. */
import { print } from "../../sys/standard-io.ts";
import { openClient } from "../client.ts";
import { printJson } from "../output.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description: `Bring the VM of a snapshot back as it was, under its own id and name. It must not be running; what it has done since the snapshot is lost. Prints the
VM's id. For another VM from the same state: mayfly run --snapshot.`,
  operands: [{ name: "SNAPSHOT", kind: "snapshot" }],
  options: {},
  examples: [["mayfly stop web && mayfly restore before-update", "go back"]],
  async run({ operands, global }) {
    const vm = await openClient(global).snapshots.restore(operands[0] ?? "");
    if (global.json) await printJson(vm);
    else await print(`${vm.id}\n`);
    return 0;
  },
});
