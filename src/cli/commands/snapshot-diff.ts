/** `mayfly snapshot diff`. */
import { print } from "../../sys/standard-io.ts";
import { openClient } from "../client.ts";
import { formatTable, printJson } from "../output.ts";
import { formatBytes } from "../sizes.ts";
import { defineCommand } from "../specification.ts";

const PAGE_BYTES = 4096;

export const command = defineCommand({
  description: `Show which pages of guest memory differ between a snapshot and another one of the same base; without FROM between it and its base. Files that a running
VM has changed: mayfly diff.`,
  operands: [
    { name: "SNAPSHOT", kind: "snapshot" },
    { name: "FROM", kind: "snapshot", optional: true },
  ],
  options: { quiet: { kind: "flag", short: "q", summary: "Only how many pages" } },
  examples: [
    ["mayfly snapshot diff after before", "what happened between the two"],
    ["mayfly snapshot diff -q after", "how far it is from its template"],
  ],
  async run({ options, operands, global }) {
    const [snapshot = "", from] = operands;
    const diff = await openClient(global).snapshots.diff(snapshot, from === undefined ? {} : { from });
    if (global.json) {
      await printJson(diff);
      return 0;
    }
    if (options.quiet) {
      await print(`${diff.pages}\n`);
      return 0;
    }
    const rows = diff.ranges.map(({ startBytes, lengthBytes }) => [hex(startBytes), formatBytes(lengthBytes)]);
    const cut = diff.truncated ? `; only the first ${diff.ranges.length} ranges are shown` : "";
    const sum = `${diff.pages} pages (${formatBytes(diff.pages * PAGE_BYTES)}) differ from ${diff.from ?? "the base"}${cut}\n`;
    await print(`${rows.length === 0 ? "" : formatTable(["ADDRESS", "LENGTH"], rows)}${sum}`);
    return 0;
  },
});

/** A guest-physical address as kernels write it. */
function hex(bytes: number): string {
  return `0x${bytes.toString(16).padStart(9, "0")}`;
}
