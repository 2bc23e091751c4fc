/** `mayfly top`: the processes of a VM. */
import { openClient } from "../client.ts";
import { printJson, printTable } from "../output.ts";
import { processColumns } from "../process-columns.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  usage: "VM [PS OPTION...]",
  description: `Show the processes of a running VM, those that exec has started too. PIDs are the VM's own.
Of the options of ps it knows -ef (as without any), aux, and -o with columns.`,
  operands: [
    { name: "VM", kind: "vm" },
    { name: "PS-OPTION", kind: "command", optional: true },
  ],
  options: {},
  examples: [
    ["mayfly top web", "what runs in it"],
    ["mayfly top web aux", "with memory and CPU"],
    ["mayfly top web -o pid,user,etime,args", "some columns"],
  ],
  async run({ operands, global }) {
    const [ref = "", ...words] = operands;
    const isJson = global.json || words.includes("--json");
    const options = words.filter((word) => word !== "--json");
    const columns = processColumns(options);
    const client = openClient(global);
    const [vm, processes] = await Promise.all([client.vms.get(ref), client.vms.processes(ref)]);
    if (isJson) {
      await printJson(processes);
      return 0;
    }
    const context = { nowMs: Date.now(), memoryBytes: vm.memoryBytes };
    await printTable(
      columns.map(({ heading }) => heading),
      processes.map((process) => columns.map((column) => column.text(process, context))),
    );
    return 0;
  },
});
