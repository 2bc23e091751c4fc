/** `mayfly build` and `mayfly image build`. */
import { resolve } from "node:path";
import type { BuildImageRequest } from "../../contract/api.ts";
import { print } from "../../sys/standard-io.ts";
import { usageError } from "../arguments.ts";
import { openClient } from "../client.ts";
import { printJson } from "../output.ts";
import { REGISTRY_OPTIONS, registryAccess } from "../registry-options.ts";
import { defineCommand } from "../specification.ts";
import { withProgress } from "../with-progress.ts";

export const command = defineCommand({
  description: `Build an image from a Dockerfile and the directory that it copies from, on the daemon's host. Images that it needs are taken from here, and
pulled if they are not here. Steps that an earlier build has carried out are not repeated. Its RUN steps run on the host, as root in a chroot,
with the host's network: build only what you would run there. Prints the image's id.`,
  operands: [{ name: "DIR", kind: "file" }],
  options: {
    file: {
      kind: "value",
      short: "f",
      value: "FILE",
      summary: "Dockerfile (DIR/Containerfile, DIR/Dockerfile)",
      complete: "file",
    },
    tag: { kind: "list", short: "t", value: "NAME", summary: "Name of the image" },
    "build-arg": {
      kind: "list",
      value: "NAME=VALUE",
      summary: "Value of an ARG; without =VALUE that of the environment",
    },
    target: { kind: "value", value: "STAGE", summary: "Stage to stop after" },
    "no-cache": { kind: "flag", summary: "Carry out every step" },
    quiet: { kind: "flag", short: "q", summary: "Only the image's id" },
    ...REGISTRY_OPTIONS,
  },
  examples: [
    ["mayfly build -t app:1 .", "from ./Dockerfile"],
    [
      "mayfly build -t app:1 -f docker/Dockerfile --build-arg VERSION=3 --target test src",
      "another file, up to a stage",
    ],
  ],
  async run({ options, operands, global }) {
    const [context = ""] = operands;
    const request: BuildImageRequest = { context: resolve(context), ...(await registryAccess(options, undefined)) };
    if (options.file !== undefined) request.dockerfile = resolve(options.file);
    if (options.tag.length > 0) request.tags = [...options.tag];
    if (options["build-arg"].length > 0) request.buildArgs = argumentsOf(options["build-arg"]);
    if (options.target !== undefined) request.target = options.target;
    if (options["no-cache"]) request.noCache = true;
    const client = openClient(global);
    const images = await withProgress(global, (progress) => client.images.build(request, progress), !options.quiet);
    const [first] = images;
    if (global.json) await printJson(images);
    else await print(`${first?.configDigest ?? first?.digest}\n`);
    return 0;
  },
});

/** As docker: a name alone takes its value from the environment, and is nothing if it has none there. */
function argumentsOf(list: readonly string[]): Record<string, string> {
  const pairs = list.flatMap((text): [string, string][] => {
    const equals = text.indexOf("=");
    if (equals === 0) throw usageError("mayfly build", `--build-arg ${JSON.stringify(text)} has no name`);
    if (equals > 0) return [[text.slice(0, equals), text.slice(equals + 1)]];
    const value = process.env[text];
    return value === undefined ? [] : [[text, value]];
  });
  return Object.fromEntries(pairs);
}
