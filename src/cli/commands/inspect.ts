/** `mayfly inspect`. */
import type { Client } from "../../client/client.ts";
import type { ImageDetails, Vm } from "../../contract/api.ts";
import { MayflyError } from "../../contract/errors.ts";
import { openClient } from "../client.ts";
import { inspectEach } from "../each.ts";
import { withLineage } from "../lineage.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description: `Show all that is known of VMs, as a JSON array: state, exit, how long each stage of the start took, where it is in the tree and what memory it
shares. What is no VM is looked for among the images.`,
  operands: [{ name: "VM", kind: "vm", many: true }],
  options: {},
  examples: [
    ["mayfly inspect web", "one VM"],
    ["mayfly inspect debian:12", "an image"],
    ["mayfly inspect web | jq '.[0].clone'", "how it was started"],
  ],
  async run({ operands, global }) {
    const client = openClient(global);
    return inspectEach(operands, global.json, (ref) => vmOrImage(client, ref));
  },
});

async function vmOrImage(client: Client, ref: string): Promise<Vm | ImageDetails> {
  const isMissing = (error: unknown) => error instanceof MayflyError && error.kind === "not_found";
  try {
    return await withLineage(client, await client.vms.get(ref));
  } catch (error) {
    if (!isMissing(error)) throw error;
    return await client.images.get(ref).catch((other: unknown) => {
      if (!isMissing(other)) throw other;
      throw new MayflyError("vm_not_found", `There is no VM and no image ${JSON.stringify(ref)}`);
    });
  }
}
