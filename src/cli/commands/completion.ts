/** `mayfly completion`. */
import { print } from "../../sys/standard-io.ts";
import { usageError } from "../arguments.ts";
import { completionScript, SHELLS } from "../completion.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description:
    "Print the script that completes commands, options, and the names of VMs, templates and images in a shell.",
  operands: [{ name: "SHELL", kind: SHELLS }],
  options: {},
  examples: [
    ["mayfly completion bash > /etc/bash_completion.d/mayfly", "bash"],
    ['mayfly completion zsh > "${fpath[1]}/_mayfly"', "zsh"],
    ["mayfly completion fish > ~/.config/fish/completions/mayfly.fish", "fish"],
  ],
  async run({ operands, tree }) {
    const shell = SHELLS.find((known) => known === operands[0]);
    if (shell === undefined)
      throw usageError("mayfly completion", `SHELL is ${JSON.stringify(operands[0])}, not ${SHELLS.join(", ")}`);
    await print(await completionScript(shell, tree));
    return 0;
  },
});
