/** `mayfly image import`. */
import { resolve } from "node:path";
import { print } from "../../sys/standard-io.ts";
import { openClient } from "../client.ts";
import { printJson } from "../output.ts";
import { defineCommand } from "../specification.ts";
import { withProgress } from "../with-progress.ts";

export const command = defineCommand({
  description: `Import a root file system: a tarball (plain, gzip, xz, zstd) or an erofs or ext4 image. Owners, modes, extended attributes, hard
links and devices are kept. The file is read on the daemon's host. Prints the image's id.`,
  operands: [
    { name: "NAME", kind: "none" },
    { name: "FILE", kind: "file" },
  ],
  options: {},
  examples: [
    ["mayfly image import debian rootfs.tar.xz", "from a tarball"],
    ["mayfly run --rm --rootfs debian -- cat /etc/os-release", "and a VM on it"],
  ],
  async run({ operands, global }) {
    const [name = "", file = ""] = operands;
    const client = openClient(global);
    const image = await withProgress(global, (options) => client.images.import({ name, path: resolve(file) }, options));
    if (global.json) await printJson(image);
    else await print(`${image.id}\n`);
    return 0;
  },
});
