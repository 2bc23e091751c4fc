/** `mayfly kernel use`. */
import { useKernel } from "../../setup/kernel-choice.ts";
import { stateDirectory } from "../../sys/directories.ts";
import { print } from "../../sys/standard-io.ts";
import { printJson } from "../output.ts";
import { defineCommand } from "../specification.ts";
import { withSetupProgress } from "../with-setup-progress.ts";

export const command = defineCommand({
  description: `Put a guest kernel in force for new VMs, also of a daemon that runs; those that run go on with theirs. Base templates are
built again on demand, those of applications by template build.`,
  operands: [{ name: "NAME|cloud|minimal", kind: "kernel" }],
  options: {},
  examples: [
    ["sudo mayfly kernel use cloud", "Debian's own"],
    ["sudo mayfly kernel use minimal", "the newest that was built here"],
  ],
  async run({ operands: [name = ""], global }) {
    const { kernel } = await withSetupProgress((progress) =>
      useKernel(name, { stateDir: stateDirectory(), command: `kernel use ${name}`, ...progress }),
    );
    if (global.json) await printJson(kernel);
    else await print(`${kernel.version}\n`);
    return 0;
  },
});
