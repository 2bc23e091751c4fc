/** `mayfly cp`. */

import { usageError } from "../arguments.ts";
import { openClient } from "../client.ts";
import { copyIn, copyOut } from "../copy.ts";
import { parseSide } from "../copy-paths.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description: `Copy between this host and a running VM. One side is VM:PATH, the other a path or -, a tar stream. A directory is copied into a
target directory that exists, or becomes the target; DIR/. stands for what is in it. Directories and streams need tar in the guest.`,
  operands: [
    { name: "SOURCE", kind: "file" },
    { name: "TARGET", kind: "file" },
  ],
  options: {
    archive: { kind: "flag", short: "a", summary: "Keep owners" },
    "follow-link": { kind: "flag", short: "L", summary: "Copy what a symbolic link points to" },
  },
  examples: [
    ["mayfly cp site.conf web:/etc/site.conf", "a file into a VM"],
    ["mayfly cp web:/var/log ./logs", "a directory out of it"],
    ["tar -cf - src | mayfly cp - build:/work", "a tar stream"],
  ],
  async run({ options, operands, global }) {
    const [source, target] = [parseSide(operands[0] ?? ""), parseSide(operands[1] ?? "")];
    const client = openClient(global);
    const how = { archive: options.archive, followLink: options["follow-link"] };
    if (source.kind === "guest" && target.kind !== "guest") await copyOut(client, source, target, how);
    else if (target.kind === "guest" && source.kind !== "guest") await copyIn(client, source, target, how);
    else throw usageError("mayfly cp", "one side, and only one, is VM:PATH");
    return 0;
  },
});
