/** `mayfly pull` and `mayfly image pull`. */
import { familiarName } from "../../contract/reference.ts";
import { print, printError } from "../../sys/standard-io.ts";
import { openClient } from "../client.ts";
import { printJson } from "../output.ts";
import { REGISTRY_OPTIONS, registryAccess } from "../registry-options.ts";
import { defineCommand } from "../specification.ts";
import { withProgress } from "../with-progress.ts";

export const command = defineCommand({
  description: `Get images from registries. Layers that are here already are not fetched again, and an image that has not changed not at all. Short names
mean what they do to docker: debian is docker.io/library/debian:latest. Of several platforms linux/amd64 is taken. Credentials are looked for
where podman and docker keep them; mirrors are those of the host's registries.conf. Plain HTTP is spoken on the loopback address only.`,
  operands: [{ name: "IMAGE", kind: "image", many: true }],
  options: { ...REGISTRY_OPTIONS, quiet: { kind: "flag", short: "q", summary: "Say nothing but the names" } },
  examples: [
    ["mayfly pull debian:12", "from Docker Hub"],
    ["mayfly pull localhost:5000/app:1", "from a registry on this machine"],
    ["mayfly pull --creds me:secret registry.example.com/team/app@sha256:...", "exactly this one"],
  ],
  async run({ options, operands, global }) {
    const client = openClient(global);
    const results: unknown[] = [];
    for (const reference of operands) {
      const request = { reference, ...(await registryAccess(options, reference)) };
      const result = await withProgress(global, (progress) => client.images.pull(request, progress));
      results.push({ ...result.image, unchanged: result.unchanged });
      if (global.json) continue;
      const name = familiarName(result.image.name);
      const what = result.unchanged ? `${name} is here as it is there` : `${name} is here`;
      if (!options.quiet) await printError(`mayfly: ${what}\n`);
      await print(`${result.image.name}\n`);
    }
    if (global.json) await printJson(operands.length === 1 ? results[0] : results);
    return 0;
  },
});
