/** `mayfly setup`. */

import { showProgress } from "../../setup/progress.ts";
import { setup } from "../../setup/setup.ts";
import { stateDirectory } from "../../sys/directories.ts";
import { print, printError } from "../../sys/standard-io.ts";
import { isTerminal, terminalSize } from "../../sys/terminal.ts";
import { formatFacts, printJson } from "../output.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description: `Get and build what VMs need: Debian packages, QEMU, kernel, guest agent, launcher, initramfs. Steps that are done are
skipped, and it may be interrupted at any time.`,
  operands: [],
  options: {},
  examples: [["sudo mayfly setup", "once on a machine, and after an update"]],
  async run({ global }) {
    const interrupt = new AbortController();
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => interrupt.abort());
    using display = showProgress({
      write: (text) => void printError(text),
      isTerminal: isTerminal(2),
      columns: terminalSize(2)?.columns ?? 80,
    });
    const artifacts = await setup({
      stateDir: stateDirectory(),
      onProgress: display.onProgress,
      signal: interrupt.signal,
    });
    if (global.json) await printJson(artifacts);
    else {
      const [qemu] = artifacts.qemu;
      const facts: [string, string][] = [
        ["QEMU", `${qemu.version} (${qemu.path})`],
        ["Kernel", artifacts.kernel.version],
        ["Agent", artifacts.agent.buildId],
      ];
      await print(`${formatFacts(facts)}Ready: mayfly run --rm -- uname -r\n`);
    }
    return 0;
  },
});
