/** `mayfly bench`: its own program, which reads its own options. */
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description: "Measure starts, first output, memory. The scenario and its options: mayfly bench -- --help",
  operands: [{ name: "SCENARIO", kind: "command", optional: true }],
  options: {},
  examples: [
    ["mayfly bench clone --runs 50 --peers runc,crun,boot --json", "clones against other runtimes"],
    ["mayfly bench fork --depth 10 --children 10 --dirty 64", "what forks and checkpoints cost a running VM"],
    ["mayfly bench app --app node", "a web service of an image, as a VM and as a container"],
    ["mayfly bench density --vms 1000 --peers containerd,podman", "what one of many idle VMs costs, and a container"],
  ],
  async run({ operands, global }) {
    const { main } = await import("../../../bench/main.ts");
    return main(operands, global);
  },
});
