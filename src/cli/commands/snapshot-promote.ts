/** `mayfly snapshot promote`. */
import { print } from "../../sys/standard-io.ts";
import { openClient } from "../client.ts";
import { printJson } from "../output.ts";
import { defineCommand } from "../specification.ts";
import { withProgress } from "../with-progress.ts";

export const command = defineCommand({
  description: `Make a template of a snapshot: VMs that are started from it then share all of its pages and copy none. VMs that run already are left alone. Large or
much used snapshots are promoted in the background without being told. Prints the template's id.`,
  operands: [{ name: "SNAPSHOT", kind: "snapshot" }],
  options: {},
  examples: [["mayfly snapshot promote warm && mayfly run -d --snapshot warm", "before many are started from it"]],
  async run({ operands, global }) {
    const [ref = ""] = operands;
    const client = openClient(global);
    const snapshot = await withProgress(global, (progress) => client.snapshots.promote(ref, progress));
    if (global.json) await printJson(snapshot);
    else await print(`${snapshot.promotedTo ?? ""}\n`);
    return 0;
  },
});
