/** `mayfly kernel ls`. */
import { kernelsOf } from "../../setup/kernel-store.ts";
import { stateDirectory } from "../../sys/directories.ts";
import { print } from "../../sys/standard-io.ts";
import { printJson, printTable } from "../output.ts";
import { formatBytes } from "../sizes.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description: "List the guest kernels that are there: Debian's (cloud), and those built here (minimal).",
  operands: [],
  options: { quiet: { kind: "flag", short: "q", summary: "Only names" } },
  examples: [["mayfly kernel ls", "all kernels"]],
  async run({ options, global }) {
    const kernels = await kernelsOf(stateDirectory());
    if (options.quiet) await print(kernels.map(({ name }) => `${name}\n`).join(""));
    else if (global.json) await printJson(kernels);
    else {
      const rows = kernels.map(({ name, kind, version, imageBytes, sizeBytes, inUse }) => [
        ...[name, kind, version, formatBytes(imageBytes), formatBytes(sizeBytes), inUse ? "yes" : "no"],
      ]);
      await printTable(["NAME", "KIND", "VERSION", "IMAGE", "ON DISK", "IN USE"], rows);
    }
    return 0;
  },
});
