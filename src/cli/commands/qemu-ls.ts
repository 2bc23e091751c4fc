/** `mayfly qemu ls`. */
import { qemusOf } from "../../setup/qemu-store.ts";
import { stateDirectory } from "../../sys/directories.ts";
import { print } from "../../sys/standard-io.ts";
import { printJson, printTable } from "../output.ts";
import { formatBytes } from "../sizes.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description: `List the QEMUs that are there: Debian's (stock), and those built here (lean). LIBRARIES is how many shared ones the program
loads; those of Debian's are stood in for by one small file where no VM reaches them. PROCESSES is how many run it now.`,
  operands: [],
  options: { quiet: { kind: "flag", short: "q", summary: "Only names" } },
  examples: [["mayfly qemu ls", "all QEMUs"]],
  async run({ options, global }) {
    const qemus = await qemusOf(stateDirectory());
    if (options.quiet) await print(qemus.map(({ name }) => `${name}\n`).join(""));
    else if (global.json) await printJson(qemus);
    else {
      const rows = qemus.map(({ name, kind, version, sizeBytes, libraries, standIns, inUse, processes }) => [
        ...[name, kind, version, formatBytes(sizeBytes), `${libraries.length}${standIns ? ", with stand-ins" : ""}`],
        ...[String(processes), inUse ? "yes" : "no"],
      ]);
      await printTable(["NAME", "KIND", "VERSION", "SIZE", "LIBRARIES", "PROCESSES", "IN USE"], rows);
    }
    return 0;
  },
});
