/** `mayfly system df`. */
import { openClient } from "../client.ts";
import { printJson, printTable } from "../output.ts";
import { formatBytes } from "../sizes.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description:
    "Show how much disk space templates, images, volumes, snapshots, packed directories and VMs take, and how much of it prune would free.",
  operands: [],
  options: {},
  examples: [["mayfly system df", "the use of the disk"]],
  async run({ global }) {
    const usage = await openClient(global).system.diskUsage();
    if (global.json) {
      await printJson(usage);
      return 0;
    }
    const rows = (["templates", "images", "volumes", "snapshots", "directories", "vms"] as const).map((name) => {
      const { count, bytes, reclaimableBytes } = usage[name];
      return [
        name === "vms" ? "VMs" : name.replace(/^./, (letter) => letter.toUpperCase()),
        String(count),
        formatBytes(bytes),
        formatBytes(reclaimableBytes),
      ];
    });
    await printTable(["TYPE", "COUNT", "SIZE", "RECLAIMABLE"], rows);
    return 0;
  },
});
