/** `mayfly diff`: what a VM has changed of its image. */
import { print } from "../../sys/standard-io.ts";
import { openClient } from "../client.ts";
import { changeLine, printJson } from "../output.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description: `Show the files that a running VM has added (A), changed (C) and deleted (D) of its image. Volumes, tmpfs and what every
container gets are left out. Characters that a terminal would obey are shown as escapes; --json has them as they are.`,
  operands: [{ name: "VM", kind: "vm" }],
  options: {},
  examples: [["mayfly diff web", "what it has written"]],
  async run({ operands, global }) {
    const changes = await openClient(global).vms.changes(operands[0] ?? "");
    if (global.json) await printJson(changes);
    else await print(changes.map(changeLine).join(""));
    return 0;
  },
});
