/** `mayfly volume resize`. */
import { print } from "../../sys/standard-io.ts";
import { openClient } from "../client.ts";
import { printJson } from "../output.ts";
import { parseBytes } from "../sizes.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description:
    "Make a volume that no VM has larger. Its file system grows when it is mounted next. It cannot become smaller.",
  operands: [
    { name: "VOLUME", kind: "volume" },
    { name: "SIZE", kind: "none" },
  ],
  options: {},
  examples: [["mayfly volume resize data 50g", "from now on it can hold 50 GiB"]],
  async run({ operands: [name = "", size = ""], global }) {
    const volume = await openClient(global).volumes.resize(name, parseBytes("SIZE", size));
    if (global.json) await printJson(volume);
    else await print(`${volume.name}\n`);
    return 0;
  },
});
