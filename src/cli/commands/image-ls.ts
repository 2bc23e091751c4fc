/** `mayfly image ls`. */
import { print } from "../../sys/standard-io.ts";
import { openClient } from "../client.ts";
import { shortId } from "../ids.ts";
import { printJson, printTable } from "../output.ts";
import { formatBytes, formatElapsed } from "../sizes.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description: "List imported images.",
  operands: [],
  options: {
    quiet: { kind: "flag", short: "q", summary: "Only names" },
    "no-trunc": { kind: "flag", summary: "Whole ids and digests" },
  },
  examples: [["mayfly image ls", "all images"]],
  async run({ options, global }) {
    const images = (await openClient(global).images.list()).sort((a, b) => a.name.localeCompare(b.name));
    const whole = options["no-trunc"];
    if (options.quiet) await print(images.map(({ name }) => `${name}\n`).join(""));
    else if (global.json) await printJson(images);
    else {
      const rows = images.map((image) => [
        image.name,
        whole ? image.id : shortId(image.id),
        whole ? image.digest : image.digest.replace(/^sha256:/, "").slice(0, 12),
        image.fstype,
        `${formatElapsed(image.createdAt, Date.now())} ago`,
        formatBytes(image.sizeBytes),
      ]);
      await printTable(["NAME", "IMAGE ID", "DIGEST", "TYPE", "CREATED", "SIZE"], rows);
    }
    return 0;
  },
});
