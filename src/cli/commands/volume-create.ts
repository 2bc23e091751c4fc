/** `mayfly volume create`. */
import type { CreateVolumeRequest } from "../../contract/api.ts";
import { print } from "../../sys/standard-io.ts";
import { openClient } from "../client.ts";
import { parseLabels } from "../labels.ts";
import { printJson } from "../output.ts";
import { parseBytes } from "../sizes.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description: "Make a volume: an ext4 disk that takes space only as it is filled. Prints its name.",
  operands: [{ name: "NAME", kind: "none", optional: true }],
  options: {
    size: { kind: "value", short: "s", value: "SIZE", summary: "Size of the disk, e.g. 500m or 20g (10g)" },
    label: { kind: "list", short: "l", value: "KEY=VALUE", summary: "Attach a label" },
  },
  examples: [
    ["mayfly volume create data", "an empty volume"],
    ["mayfly run -v data:/var/lib/data ...", "use it; one that is not there is made"],
  ],
  async run({ options, operands, global }) {
    const request: CreateVolumeRequest = {};
    const [name] = operands;
    if (name !== undefined) request.name = name;
    if (options.size !== undefined) request.sizeBytes = parseBytes("--size", options.size);
    if (options.label.length > 0) request.labels = parseLabels(options.label);
    const volume = await openClient(global).volumes.create(request);
    if (global.json) await printJson(volume);
    else await print(`${volume.name}\n`);
    return 0;
  },
});
