/** `mayfly snapshot inspect`. */
import { openClient } from "../client.ts";
import { inspectEach } from "../each.ts";
import { withLineage } from "../lineage.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description: "Show all that is known of snapshots, as a JSON array.",
  operands: [{ name: "SNAPSHOT", kind: "snapshot", many: true }],
  options: {},
  examples: [["mayfly snapshot inspect before-update | jq '.[0].times'", "how long its VM stood still"]],
  async run({ operands, global }) {
    const client = openClient(global);
    return inspectEach(operands, global.json, (ref) =>
      client.snapshots.get(ref).then((found) => withLineage(client, found)),
    );
  },
});
