/** `mayfly fork`. */
import { type ForkRequest, MAX_CHILDREN } from "../../contract/api.ts";
import { MayflyError } from "../../contract/errors.ts";
import { print, printError } from "../../sys/standard-io.ts";
import { describeTimes } from "../capture-times.ts";
import { openClient } from "../client.ts";
import { parseLabels } from "../labels.ts";
import { printJson } from "../output.ts";
import { formatBytes, parseCount } from "../sizes.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description: `Start VMs from a running one, which goes on. Each goes on from the same moment, with an identity of its own; connections that the VM had are reset in
them. They share the pages that are unchanged since the template. Prints their ids, one a line.`,
  operands: [{ name: "VM", kind: "vm" }],
  options: {
    number: { kind: "value", short: "n", value: "NUMBER", summary: "How many (1)" },
    name: { kind: "value", value: "PREFIX", summary: "Call them PREFIX-1, PREFIX-2 and so on; one alone PREFIX" },
    label: { kind: "list", short: "l", value: "KEY=VALUE", summary: "Attach a label to each" },
    rm: { kind: "flag", summary: "Remove each and its logs when it ends" },
    names: { kind: "flag", summary: "Print names instead of ids" },
    verbose: { kind: "flag", short: "v", summary: "Say how long the VM stood still" },
  },
  examples: [
    ["mayfly fork web", "a second one, from where it is now"],
    ["mayfly fork -n 10 --name worker --rm web", "worker-1 to worker-10"],
    ["mayfly tree", "what came from what, and what each has to itself"],
  ],
  async run({ options, operands, global }) {
    const [vm = ""] = operands;
    const request: ForkRequest = {};
    if (options.number !== undefined) request.count = childrenOf(options.number);
    if (options.name !== undefined) request.namePrefix = options.name;
    if (options.label.length > 0) request.labels = parseLabels(options.label);
    if (options.rm) request.autoRemove = true;
    const client = openClient(global);
    const result = await client.vms.fork(vm, request);
    if (global.json) {
      await printJson(result);
      return 0;
    }
    const { deltaBytes } = result;
    const copied = deltaBytes === 0 ? "its memory is shared" : `${formatBytes(deltaBytes)} of it are copied into each`;
    if (options.verbose) await printError(`${vm} ${describeTimes(result.times)}; ${copied}\n`);
    const { vmIds } = result;
    const words = options.names ? await Promise.all(vmIds.map(async (id) => (await client.vms.get(id)).name)) : vmIds;
    await print(words.map((word) => `${word}\n`).join(""));
    return 0;
  },
});

function childrenOf(text: string): number {
  const count = parseCount("--number", text);
  if (count >= 1 && count <= MAX_CHILDREN) return count;
  throw new MayflyError("invalid_argument", `--number is ${count}; a fork has from 1 to ${MAX_CHILDREN} children`);
}
