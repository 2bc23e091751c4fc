/** `mayfly snapshot export`. */
import { resolve } from "node:path";
import type { ExportSnapshotRequest } from "../../contract/api.ts";
import { print } from "../../sys/standard-io.ts";
import { openClient } from "../client.ts";
import { printJson } from "../output.ts";
import { defineCommand } from "../specification.ts";
import { withProgress } from "../with-progress.ts";

export const command = defineCommand({
  description: `Write a snapshot into one file: its pages, devices and disks, the template that it is based on and the image of its VM. The file is written on the
daemon's host. It has all that was in the VM's memory, secrets too. Prints the snapshot's id.`,
  operands: [
    { name: "SNAPSHOT", kind: "snapshot" },
    { name: "FILE", kind: "file" },
  ],
  options: {
    "no-base": { kind: "flag", summary: "Leave the template out: it has to be there at the import" },
    "no-image": { kind: "flag", summary: "Leave the image out: it has to be there, the same to the byte" },
  },
  examples: [
    ["mayfly snapshot export before-update before-update.mayfly", "for another host"],
    ["mayfly snapshot export --no-base night night.mayfly", "a backup on a host that keeps its templates"],
  ],
  async run({ options, operands, global }) {
    const [ref = "", file = ""] = operands;
    const request: ExportSnapshotRequest = {
      path: resolve(file),
      ...(options["no-base"] ? { base: false } : {}),
      ...(options["no-image"] ? { image: false } : {}),
    };
    const client = openClient(global);
    const snapshot = await withProgress(global, (progress) => client.snapshots.export(ref, request, progress));
    if (global.json) await printJson(snapshot);
    else await print(`${snapshot.id}\n`);
    return 0;
  },
});
