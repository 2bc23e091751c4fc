/** `mayfly template ls`. */
import type { Template } from "../../contract/api.ts";
import { familiarName } from "../../contract/reference.ts";
import { print } from "../../sys/standard-io.ts";
import { openClient } from "../client.ts";
import { shortId } from "../ids.ts";
import { printJson, printTable } from "../output.ts";
import { formatBytes, formatElapsed } from "../sizes.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description:
    "List templates. One that does not fit this host's QEMU, kernel or agent any more is not used: prune removes it if it is one of a size, and build makes it again if it is one of an application.",
  operands: [],
  options: {
    quiet: { kind: "flag", short: "q", summary: "Only ids" },
    names: { kind: "flag", summary: "With --quiet: names instead of ids, where there are some" },
    "no-trunc": { kind: "flag", summary: "Whole ids" },
  },
  examples: [["mayfly template ls", "all templates"]],
  async run({ options, global }) {
    const templates = await openClient(global).templates.list();
    const idOf = (id: string) => (options["no-trunc"] ? id : shortId(id));
    if (options.quiet) {
      const text = ({ id, name }: Template) => (options.names ? name : null) ?? idOf(id);
      await print(templates.map((template) => `${text(template)}\n`).join(""));
    } else if (global.json) await printJson(templates);
    else {
      const rows = templates.map((template) => [
        idOf(template.id),
        template.name ?? "-",
        template.application === null ? "-" : familiarName(template.application.image),
        `${template.shape.memoryMiB}MiB`,
        String(template.shape.vcpus),
        template.profile,
        template.compatible ? "yes" : "no",
        formatBytes(template.memory.allocatedBytes),
        `${formatElapsed(template.createdAt, Date.now())} ago`,
        template.lastUsedAt === null ? "never" : `${formatElapsed(template.lastUsedAt, Date.now())} ago`,
      ]);
      const heading = [
        "TEMPLATE ID",
        "NAME",
        "IMAGE",
        "MEMORY",
        "CPUS",
        "DEVICES",
        "FITS",
        "ON DISK",
        "CREATED",
        "USED",
      ];
      await printTable(heading, rows);
    }
    return 0;
  },
});
