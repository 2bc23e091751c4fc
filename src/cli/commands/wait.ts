/** `mayfly wait`. */
import { print } from "../../sys/standard-io.ts";
import { openClient } from "../client.ts";
import { printJsonLine } from "../output.ts";
import { report } from "../report.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description: "Wait until VMs have ended, and print the exit code of each main process, in the order of the VMs.",
  operands: [{ name: "VM", kind: "vm", many: true }],
  options: {},
  examples: [["mayfly wait build && echo done", "wait for one"]],
  async run({ operands, global }) {
    const client = openClient(global);
    const waits = operands.map((vm) =>
      client.vms.wait(vm).then(
        (ended) => ({ ended }),
        (error: unknown) => ({ error }),
      ),
    );
    let exitCode = 0;
    for (const wait of waits) {
      const result = await wait;
      if ("error" in result) {
        exitCode ||= await report(result.error, global.json);
        continue;
      }
      const { id, exitCode: code, exitSignal } = result.ended;
      if (global.json) await printJsonLine({ id, exitCode: code, exitSignal });
      else await print(`${code ?? 125}\n`);
    }
    return exitCode;
  },
});
