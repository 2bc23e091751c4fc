/** `mayfly qemu build`. */
import { buildQemu } from "../../setup/qemu-build.ts";
import { useQemu } from "../../setup/qemu-choice.ts";
import { qemusOf } from "../../setup/qemu-store.ts";
import { stateDirectory } from "../../sys/directories.ts";
import { print } from "../../sys/standard-io.ts";
import { formatFacts, printJson } from "../output.ts";
import { formatBytes } from "../sizes.ts";
import { defineCommand } from "../specification.ts";
import { withSetupProgress } from "../with-setup-progress.ts";

export const command = defineCommand({
  description: `Build a lean QEMU from Debian's sources of QEMU 10.0, with the devices that VMs have and nothing else (the folder qemu), and
put it in force. Takes 2 to 6 minutes and 1.5 GB of disk meanwhile. The packages that it needs are told and installed. If that QEMU is
there already, it is only put in force. It may be interrupted at any time; its whole output is in STATE/build/qemu.log.`,
  operands: [],
  options: {
    "no-use": { kind: "flag", summary: "Build it, and leave the one in use" },
    pie: { kind: "flag", summary: "At another address in each process: 0.6 MB and 1 ms more each (docs/SECURITY.md)" },
    check: { kind: "flag", summary: "Build it again, and fail if the program has other bytes than before" },
  },
  examples: [
    ["sudo mayfly qemu build", "once, and after an update of Debian's QEMU"],
    ["sudo mayfly qemu build --check", "whether it can be reproduced here"],
  ],
  async run({ options, global }) {
    const stateDir = stateDirectory();
    const name = await withSetupProgress(async (progress) => {
      const setup = { stateDir, command: "qemu build", ...progress };
      const built = await buildQemu({ ...setup, pie: options.pie, check: options.check });
      if (!options["no-use"]) await useQemu(built, setup);
      return built;
    });
    const entry = (await qemusOf(stateDir)).find((qemu) => qemu.name === name);
    if (global.json) await printJson(entry);
    else {
      const facts: [string, string][] = [
        ["QEMU", name],
        ["Version", entry?.version ?? "-"],
        ["Size", formatBytes(entry?.sizeBytes ?? 0)],
        ["SHA-256", entry?.sha256 ?? "-"],
        ["In use", entry?.inUse ? "yes, for new VMs" : "no"],
      ];
      await print(formatFacts(facts));
    }
    return 0;
  },
});
