/** `mayfly snapshot ls`. */
import type { Snapshot } from "../../contract/api.ts";
import { print } from "../../sys/standard-io.ts";
import { openClient } from "../client.ts";
import { shortId } from "../ids.ts";
import { printJson, printTable } from "../output.ts";
import { formatBytes, formatElapsed } from "../sizes.ts";
import { defineCommand } from "../specification.ts";

const PAGE_BYTES = 4096;

export const command = defineCommand({
  description: `List snapshots, the newest first. COPIED is the memory that a VM started from it does not share with the template, SIZE what it takes on the disk. A
suspended VM waits in one of kind suspended, which goes when the VM is resumed or removed.`,
  operands: [],
  options: {
    quiet: { kind: "flag", short: "q", summary: "Only ids" },
    names: { kind: "flag", summary: "With --quiet: names instead of ids, where there are some" },
    "no-trunc": { kind: "flag", summary: "Whole ids" },
  },
  examples: [
    ["mayfly snapshot ls", "all snapshots"],
    ["mayfly snapshot rm $(mayfly snapshot ls -q)", "remove what nothing needs"],
  ],
  async run({ options, global }) {
    const snapshots = (await openClient(global).snapshots.list()).toSorted((a, b) =>
      b.createdAt.localeCompare(a.createdAt),
    );
    const idOf = ({ id }: Snapshot) => (options["no-trunc"] ? id : shortId(id));
    if (options.quiet) {
      const text = (snapshot: Snapshot) => (options.names ? snapshot.name : null) ?? idOf(snapshot);
      await print(snapshots.map((snapshot) => `${text(snapshot)}\n`).join(""));
    } else if (global.json) await printJson(snapshots);
    else {
      const rows = snapshots.map((snapshot) => [
        idOf(snapshot),
        snapshot.name ?? "-",
        snapshot.kind,
        snapshot.vmName,
        formatBytes(snapshot.memoryBytes),
        formatBytes((snapshot.pages - snapshot.zeroPages) * PAGE_BYTES),
        formatBytes(snapshot.sizeBytes),
        `${formatElapsed(snapshot.createdAt, Date.now())} ago`,
      ]);
      await printTable(["SNAPSHOT ID", "NAME", "KIND", "VM", "MEMORY", "COPIED", "SIZE", "CREATED"], rows);
    }
    return 0;
  },
});
