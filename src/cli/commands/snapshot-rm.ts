/** `mayfly snapshot rm`. */
import { openClient } from "../client.ts";
import { forEach } from "../each.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description:
    "Remove snapshots. One that a VM is suspended in, or that a restart policy starts a VM from, is refused, and the VM is named.",
  operands: [{ name: "SNAPSHOT", kind: "snapshot", many: true }],
  options: {},
  examples: [["mayfly snapshot rm before-update", "the update went well"]],
  async run({ operands, global }) {
    const client = openClient(global);
    return forEach(operands, global.json, (snapshot) => client.snapshots.remove(snapshot));
  },
});
