/** `mayfly load` and `mayfly image load`. */
import { resolve } from "node:path";
import { type Image, NO_NAME } from "../../contract/api.ts";
import { familiarName } from "../../contract/reference.ts";
import { print, standardInput } from "../../sys/standard-io.ts";
import { isTerminal } from "../../sys/terminal.ts";
import { usageError } from "../arguments.ts";
import { openClient } from "../client.ts";
import { printJson } from "../output.ts";
import { defineCommand } from "../specification.ts";
import { withProgress } from "../with-progress.ts";

export const command = defineCommand({
  description: `Load all images of an archive (docker save, podman save, oci-archive; plain or compressed with gzip, xz or zstd) or of a directory that is
an OCI layout. A path is read on the daemon's host; - is standard input, sent to the daemon.`,
  operands: [{ name: "FILE", kind: "file", optional: true }],
  options: {
    input: { kind: "value", short: "i", value: "FILE", summary: "The archive, as docker has it", complete: "file" },
    quiet: { kind: "flag", short: "q", summary: "Only the images' ids" },
  },
  examples: [
    ["mayfly load app.tar", "an archive"],
    ["docker save app:1 | mayfly load -", "straight from docker"],
    ["mayfly load ./layout", "an OCI layout"],
  ],
  async run({ options, operands, global }) {
    const file = options.input ?? operands[0] ?? "-";
    if (options.input !== undefined && operands.length > 0)
      throw usageError("mayfly load", "the archive is given twice");
    if (file === "-" && isTerminal(0))
      throw usageError("mayfly load", "FILE is missing, and standard input is a terminal");
    const client = openClient(global);
    const images = await withProgress(global, (progress) =>
      file === "-"
        ? client.images.send(standardInput(), progress)
        : client.images.load({ path: resolve(file) }, progress),
    );
    if (global.json) await printJson(images);
    else await print(images.map((image) => (options.quiet ? `${identityOf(image)}\n` : `${saidOf(image)}\n`)).join(""));
    return 0;
  },
});

function identityOf({ configDigest, digest }: Image): string {
  return configDigest ?? digest;
}

function saidOf(image: Image): string {
  return image.name === NO_NAME ? `Loaded image ID: ${identityOf(image)}` : `Loaded image: ${familiarName(image.name)}`;
}
