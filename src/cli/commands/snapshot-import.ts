/** `mayfly snapshot import`. */
import { resolve } from "node:path";
import type { ImportSnapshotRequest } from "../../contract/api.ts";
import { print } from "../../sys/standard-io.ts";
import { openClient } from "../client.ts";
import { printJson } from "../output.ts";
import { defineCommand } from "../specification.ts";
import { withProgress } from "../with-progress.ts";

export const command = defineCommand({
  description: `Take in a file that mayfly snapshot export has written. All of it is checked first. It fits hosts with the same QEMU, kernel, CPU and devices; what
differs is named otherwise. The file is read on the daemon's host. Prints the snapshot's id.`,
  operands: [
    { name: "FILE", kind: "file" },
    { name: "NAME", kind: "none", optional: true },
  ],
  options: {},
  examples: [
    ["mayfly snapshot import before-update.mayfly before-update", "from another host"],
    ["mayfly restore before-update", "and its VM, as it was"],
  ],
  async run({ operands, global }) {
    const [file = "", name] = operands;
    const request: ImportSnapshotRequest = { path: resolve(file), ...(name === undefined ? {} : { name }) };
    const client = openClient(global);
    const snapshot = await withProgress(global, (progress) => client.snapshots.import(request, progress));
    if (global.json) await printJson(snapshot);
    else await print(`${snapshot.id}\n`);
    return 0;
  },
});
