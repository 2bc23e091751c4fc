/** `mayfly snapshot diff`. */
import { print } from "../../sys/standard-io.ts";
import { openClient } from "../client.ts";
import { changeLine, formatTable, printJson } from "../output.ts";
import { formatBytes } from "../sizes.ts";
import { defineCommand } from "../specification.ts";

const PAGE_BYTES = 4096;

export const command = defineCommand({
  description: `Show which pages of guest memory differ between a snapshot and another one of the same base; without FROM between it and its base. With
--files show the files that its VM has added (A), changed (C) and deleted (D) since FROM, or of its image, as mayfly diff does of a running VM.`,
  operands: [
    { name: "SNAPSHOT", kind: "snapshot" },
    { name: "FROM", kind: "snapshot", optional: true },
  ],
  options: {
    files: { kind: "flag", short: "f", summary: "Files instead of pages" },
    quiet: { kind: "flag", short: "q", summary: "Only how many" },
  },
  examples: [
    ["mayfly snapshot diff after before", "what happened between the two"],
    ["mayfly snapshot diff -q after", "how far it is from its template"],
    ["mayfly snapshot diff --files after before", "which files were written"],
  ],
  async run({ options, operands, global }) {
    const [snapshot = "", from] = operands;
    const asked = { ...(from === undefined ? {} : { from }), files: options.files };
    const diff = await openClient(global).snapshots.diff(snapshot, asked);
    if (global.json) {
      await printJson(diff);
      return 0;
    }
    if (options.quiet) {
      await print(`${diff.files?.length ?? diff.pages}\n`);
      return 0;
    }
    if (diff.files !== undefined) {
      await print(diff.files.map(changeLine).join(""));
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
