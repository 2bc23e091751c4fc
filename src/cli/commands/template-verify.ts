/** `mayfly template verify`. */
import { openClient } from "../client.ts";
import { defineCommand } from "../specification.ts";
import { verifyEach } from "../verification.ts";

export const command = defineCommand({
  description:
    "Read templates whole and check them against their manifests; without an operand, all. Ends with 1 if any is damaged.",
  operands: [{ name: "TEMPLATE", kind: "template", many: true, optional: true }],
  options: {},
  examples: [["mayfly template verify", "all templates"]],
  async run({ operands, global }) {
    const { templates } = openClient(global);
    const refs = operands.length > 0 ? operands : (await templates.list()).map(({ id }) => id);
    return verifyEach(refs, global.json, (ref) => templates.verify(ref));
  },
});
