/** `mayfly qemu use`. */
import { useQemu } from "../../setup/qemu-choice.ts";
import { stateDirectory } from "../../sys/directories.ts";
import { print } from "../../sys/standard-io.ts";
import { printJson } from "../output.ts";
import { defineCommand } from "../specification.ts";
import { withSetupProgress } from "../with-setup-progress.ts";

export const command = defineCommand({
  description: `Put a QEMU in force for new VMs; those that run go on with theirs. Base templates are built again on demand, those of
applications by template build.`,
  operands: [{ name: "NAME|lean|stock", kind: "qemu" }],
  options: {},
  examples: [
    ["sudo mayfly qemu use stock", "Debian's own"],
    ["sudo mayfly qemu use lean", "the newest that was built here"],
  ],
  async run({ operands: [name = ""], global }) {
    const { qemu } = await withSetupProgress((progress) =>
      useQemu(name, { stateDir: stateDirectory(), command: `qemu use ${name}`, ...progress }),
    );
    if (global.json) await printJson(qemu[0]);
    else await print(`${qemu[0].version} (${qemu[0].kind}) ${qemu[0].path}\n`);
    return 0;
  },
});
