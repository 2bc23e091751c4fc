/** `mayfly events`. */

import { MayflyError } from "../../contract/errors.ts";
import { print } from "../../sys/standard-io.ts";
import { openClient } from "../client.ts";
import { oneLine, printJsonLine } from "../output.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description: "Show what happens to VMs, templates and pools, until it is interrupted.",
  operands: [],
  options: {
    filter: { kind: "list", short: "f", value: "KEY=VALUE", summary: "type=BEGINNING (e.g. type=vm.) or id=ID" },
  },
  examples: [
    ["mayfly events --filter type=vm.", "only VMs"],
    ["mayfly events --json", "as JSON lines"],
  ],
  async run({ options, global }) {
    for await (const event of openClient(global).events(wanted(options.filter))) {
      if (global.json) await printJsonLine(event);
      else await print(`${line(event)}\n`);
    }
    return 0;
  },
});

function wanted(filters: readonly string[]): { type?: string; id?: string } {
  const result: { type?: string; id?: string } = {};
  for (const filter of filters) {
    const [, key, value = ""] = /^([^=]*)=(.*)$/s.exec(filter) ?? [];
    if (key !== "type" && key !== "id") {
      throw new MayflyError("invalid_argument", `--filter is ${JSON.stringify(filter)}; it takes type= or id=`);
    }
    result[key] = value;
  }
  return result;
}

function line(event: {
  time: string;
  type: string;
  id: string;
  name?: string | undefined;
  attributes: Record<string, unknown>;
}): string {
  const facts = Object.entries({ name: event.name, ...event.attributes })
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => `${key}=${typeof value === "string" ? value : JSON.stringify(value)}`);
  return oneLine(`${event.time} ${event.type} ${event.id}${facts.length === 0 ? "" : ` (${facts.join(", ")})`}`);
}
