/** `mayfly kernel build`. */
import { buildKernel } from "../../setup/kernel-build.ts";
import { useKernel } from "../../setup/kernel-choice.ts";
import { kernelsOf } from "../../setup/kernel-store.ts";
import { stateDirectory } from "../../sys/directories.ts";
import { print } from "../../sys/standard-io.ts";
import { tryKernel } from "../kernel-trial.ts";
import { formatFacts, printJson } from "../output.ts";
import { formatBytes } from "../sizes.ts";
import { defineCommand } from "../specification.ts";
import { withSetupProgress } from "../with-setup-progress.ts";

export const command = defineCommand({
  description: `Build the minimal guest kernel from Debian's linux-source and the options of guest/kernel/kernel.config, boot it, and put it
in force. Takes 5 to 20 minutes and 2.5 GB of disk meanwhile. The packages that it needs are told and installed. If that kernel is there
already, it is only put in force. It may be interrupted at any time; its whole output is in STATE/build/kernel.log.`,
  operands: [],
  options: {
    "no-use": { kind: "flag", summary: "Build it, and leave the one in use" },
    check: { kind: "flag", summary: "Build it again, and fail if it has other bytes than before" },
  },
  examples: [
    ["sudo mayfly kernel build", "once, and after an update of Debian's kernel"],
    ["sudo mayfly kernel build --check", "whether it can be reproduced here"],
  ],
  async run({ options, global }) {
    const stateDir = stateDirectory();
    const name = await withSetupProgress(async (progress) => {
      const setup = { stateDir, command: "kernel build", ...progress };
      const built = await buildKernel({ ...setup, check: options.check });
      await tryKernel(built, setup);
      if (!options["no-use"]) await useKernel(built, setup);
      return built;
    });
    const entry = (await kernelsOf(stateDir)).find((kernel) => kernel.name === name);
    if (global.json) await printJson(entry);
    else {
      const facts: [string, string][] = [
        ["Kernel", name],
        ["Version", entry?.version ?? "-"],
        ["Size", formatBytes(entry?.imageBytes ?? 0)],
        ["SHA-256", entry?.sha256 ?? "-"],
        ["In use", entry?.inUse ? "yes, for new VMs" : "no"],
      ];
      await print(formatFacts(facts));
    }
    return 0;
  },
});
