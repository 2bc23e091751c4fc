/** `mayfly volume ls`. */
import { print } from "../../sys/standard-io.ts";
import { openClient } from "../client.ts";
import { shortId } from "../ids.ts";
import { printJson, printTable } from "../output.ts";
import { formatBytes, formatElapsed } from "../sizes.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description: "List volumes, with the VM that has each, what they could hold and what they take.",
  operands: [],
  options: { quiet: { kind: "flag", short: "q", summary: "Only names" } },
  examples: [["mayfly volume ls", "all volumes"]],
  async run({ options, global }) {
    const volumes = await openClient(global).volumes.list();
    if (options.quiet) await print(volumes.map(({ name }) => `${name}\n`).join(""));
    else if (global.json) await printJson(volumes);
    else {
      const rows = volumes.map((volume) => [
        volume.name,
        volume.vmId === null ? "" : shortId(volume.vmId),
        `${formatElapsed(volume.createdAt, Date.now())} ago`,
        formatBytes(volume.sizeBytes),
        formatBytes(volume.allocatedBytes),
      ]);
      await printTable(["NAME", "VM", "CREATED", "SIZE", "USED"], rows);
    }
    return 0;
  },
});
