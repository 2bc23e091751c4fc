/** `mayfly template pool`. */
import { print } from "../../sys/standard-io.ts";
import { openClient } from "../client.ts";
import { printJson } from "../output.ts";
import { parsePool } from "../probes.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description: `Set how many clones of a template are kept prepared: warm ones, which have run and are paused, and blocked ones, QEMU processes that wait for
their state. It holds for restarts of the daemon too. 0 keeps none. Under emulation there is also a parent, which warm ones are copied from, and
every VM that finds none; PARENT 1 keeps it without any warm ones, and 0 does without it.`,
  operands: [
    { name: "TEMPLATE", kind: "template" },
    { name: "WARM[:BLOCKED[:PARENT]]", kind: "none" },
  ],
  options: {},
  examples: [
    ["mayfly template pool web 4:2", "four warm clones and two that wait"],
    ["mayfly template pool web 0:0:1", "a parent alone, which each VM is copied from"],
  ],
  async run({ operands, global }) {
    const [ref = "", sizes = ""] = operands;
    const template = await openClient(global).templates.pool(ref, parsePool("WARM[:BLOCKED[:PARENT]]", sizes));
    if (global.json) await printJson(template);
    else await print(`${template.id}\n`);
    return 0;
  },
});
