/** `mayfly qemu rm`. */
import { removeQemu } from "../../setup/qemu-choice.ts";
import { stateDirectory } from "../../sys/directories.ts";
import { forEach } from "../each.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description: `Remove lean QEMUs that are not in use and that no VM runs. Templates and snapshots that were made with one cannot be used
without it.`,
  operands: [{ name: "NAME", kind: "qemu", many: true }],
  options: {},
  examples: [["sudo mayfly qemu rm 10.0.13+ds-0+deb13u1-3f2a9c01", "remove one"]],
  async run({ operands, global }) {
    const options = { stateDir: stateDirectory(), command: `qemu rm ${operands.join(" ")}` };
    return forEach(operands, global.json, (name) => removeQemu(name, options));
  },
});
