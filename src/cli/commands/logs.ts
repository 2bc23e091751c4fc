/** `mayfly logs`: what a VM's main process has printed. */
import { standardOutput } from "../../sys/standard-io.ts";
import { openClient } from "../client.ts";
import { parseCount } from "../sizes.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description: `Show the output of a VM's main process, its standard output and standard error each to ours.
VMs that were run with --rm keep no logs.`,
  operands: [{ name: "VM", kind: "vm" }],
  options: {
    follow: { kind: "flag", short: "f", summary: "Go on until the VM ends" },
    tail: { kind: "value", short: "n", value: "LINES", summary: "Only so many last lines, or all (all)" },
    console: { kind: "flag", summary: "The guest kernel's console instead" },
  },
  examples: [
    ["mayfly logs --tail 20 -f web", "the last lines, then what follows"],
    ["mayfly logs --json web | jq -r .text", "as JSON lines"],
  ],
  async run({ options, operands, global }) {
    const [vm = ""] = operands;
    const client = openClient(global);
    if (options.console) {
      await standardOutput(1).write(new TextEncoder().encode(await client.vms.console(vm)));
      return 0;
    }
    const tail =
      options.tail === undefined || options.tail === "all" ? {} : { tail: parseCount("--tail", options.tail) };
    const decoders = { stdout: new TextDecoder(), stderr: new TextDecoder() };
    for await (const { name, bytes } of client.vms.logs(vm, { follow: options.follow, ...tail })) {
      if (!global.json) await standardOutput(name === "stdout" ? 1 : 2).write(bytes);
      else {
        const line = JSON.stringify({ stream: name, text: decoders[name].decode(bytes, { stream: true }) });
        await standardOutput(1).write(new TextEncoder().encode(`${line}\n`));
      }
    }
    return 0;
  },
});
