/** `mayfly template verify`. */
import { print } from "../../sys/standard-io.ts";
import { openClient } from "../client.ts";
import { oneLine, printJson } from "../output.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description:
    "Read templates whole and check them against their manifests; without an operand, all. Ends with 1 if any is damaged.",
  operands: [{ name: "TEMPLATE", kind: "template", many: true, optional: true }],
  options: {},
  examples: [["mayfly template verify", "all templates"]],
  async run({ operands, global }) {
    const client = openClient(global);
    const refs = operands.length > 0 ? operands : (await client.templates.list()).map(({ id }) => id);
    const results = [];
    for (const ref of refs) {
      const result = await client.templates.verify(ref);
      results.push(result);
      if (global.json) continue;
      await print(`${result.id}: ${result.ok ? "ok" : "DAMAGED"}\n`);
      for (const problem of result.problems) await print(`  - ${oneLine(problem)}\n`);
    }
    if (global.json) await printJson(results);
    return results.every(({ ok }) => ok) ? 0 : 1;
  },
});
