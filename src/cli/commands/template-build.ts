/** `mayfly template build`. */
import type { BuildTemplateRequest } from "../../contract/api.ts";
import { print } from "../../sys/standard-io.ts";
import { openClient } from "../client.ts";
import { printJson } from "../output.ts";
import { parseBytes, parsePositive } from "../sizes.ts";
import { defineCommand } from "../specification.ts";
import { withProgress } from "../with-progress.ts";

export const command = defineCommand({
  description: "Build the template that VMs of a size are cloned from, unless a fitting one exists. Prints its id.",
  operands: [],
  options: {
    name: { kind: "value", value: "NAME", summary: "Name of the template" },
    memory: { kind: "value", short: "m", value: "SIZE", summary: "Memory of the VMs, e.g. 256m (128m)" },
    cpus: { kind: "value", value: "NUMBER", summary: "CPUs of the VMs (1)" },
    force: { kind: "flag", short: "f", summary: "Build it again even if a fitting one exists" },
  },
  examples: [["mayfly template build -m 1g --cpus 2", "for larger VMs, before they are asked for"]],
  async run({ options, global }) {
    const request: BuildTemplateRequest = {};
    if (options.name !== undefined) request.name = options.name;
    if (options.memory !== undefined) request.memoryBytes = parseBytes("--memory", options.memory);
    if (options.cpus !== undefined) request.cpus = parsePositive("--cpus", options.cpus);
    if (options.force) request.force = true;
    const client = openClient(global);
    const template = await withProgress(global, (progress) => client.templates.build(request, progress));
    if (global.json) await printJson(template);
    else await print(`${template.id}\n`);
    return 0;
  },
});
