/** `mayfly tree`. */
import { openClient } from "../client.ts";
import { printJson, printTable } from "../output.ts";
import { defineCommand } from "../specification.ts";
import { TREE_HEADING, treeRows } from "../tree.ts";

export const command = defineCommand({
  description: `Draw templates, snapshots and VMs as the tree of who came from whom. SHARED is memory that one has in common with its template, UNIQUE what it has to
itself.`,
  operands: [],
  options: { "no-trunc": { kind: "flag", summary: "Whole ids where there are no names" } },
  examples: [
    ["mayfly tree", "the whole family"],
    ["mayfly tree --json | jq '.[] | select(.kind == \"vm\") | .uniqueBytes'", "what VMs cost"],
  ],
  async run({ options, global }) {
    const nodes = await openClient(global).snapshots.tree();
    if (global.json) await printJson(nodes);
    else await printTable(TREE_HEADING, treeRows(nodes, Date.now(), options["no-trunc"]));
    return 0;
  },
});
