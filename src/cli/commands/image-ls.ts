/** `mayfly images` and `mayfly image ls`. */
import { type Image, NO_NAME } from "../../contract/api.ts";
import { familiarName, formatReference, type Reference, tryReference } from "../../contract/reference.ts";
import { print } from "../../sys/standard-io.ts";
import { openClient } from "../client.ts";
import { printJson, printTable } from "../output.ts";
import { formatBytes, formatElapsed } from "../sizes.ts";
import { defineCommand } from "../specification.ts";

const SHORT_DIGEST = 12;

export const command = defineCommand({
  description: `List images, the newest first. IMAGE ID is the digest of the configuration, as docker has it; of an imported root file system, of its contents.
SIZE is that of the file system that VMs run on.`,
  operands: [{ name: "REPOSITORY[:TAG]", kind: "image", optional: true }],
  options: {
    quiet: { kind: "flag", short: "q", summary: "Only ids" },
    names: { kind: "flag", summary: "Only names" },
    digests: { kind: "flag", summary: "Also the digests that registries know them by" },
    "no-trunc": { kind: "flag", summary: "Whole ids" },
  },
  examples: [
    ["mayfly images", "all images"],
    ["mayfly images debian", "all tags of one repository"],
    ["mayfly rmi $(mayfly images -q app)", "all that are called app, whatever the tag"],
  ],
  async run({ options, operands, global }) {
    const all = await openClient(global).images.list();
    const [wanted] = operands;
    const images = all
      .filter((image) => wanted === undefined || isWanted(image, wanted))
      .sort((a, b) => b.createdAt.localeCompare(a.createdAt) || a.name.localeCompare(b.name));
    const id = (image: Image) => {
      const digest = image.configDigest ?? image.digest;
      return options["no-trunc"] ? digest : digest.replace(/^sha256:/, "").slice(0, SHORT_DIGEST);
    };
    const named = images.filter(({ name }) => name !== NO_NAME);
    if (options.names) await print(named.map(({ name }) => `${familiarName(name)}\n`).join(""));
    else if (options.quiet) await print([...new Set(images.map(id))].map((text) => `${text}\n`).join(""));
    else if (global.json) await printJson(images);
    else {
      const digest = (image: Image) => (options.digests ? [image.repoDigest ?? NO_NAME] : []);
      const rows = images.map((image) => [
        ...[...nameAndTag(image), ...digest(image), id(image)],
        ...[`${formatElapsed(image.builtAt ?? image.createdAt, Date.now())} ago`, formatBytes(image.sizeBytes)],
      ]);
      const heading = ["REPOSITORY", "TAG", ...(options.digests ? ["DIGEST"] : []), "IMAGE ID", "CREATED", "SIZE"];
      await printTable(heading, rows);
    }
    return 0;
  },
});

function nameAndTag({ name, configDigest }: Image): [repository: string, tag: string] {
  const reference = referenceOf(name);
  if (name === NO_NAME) return [NO_NAME, NO_NAME];
  if (reference === undefined) return [name, configDigest === null ? "-" : NO_NAME];
  const { tag, digest: _digest, ...repository } = reference;
  const familiar = familiarName(formatReference({ ...repository, tag: "latest" })).replace(/:latest$/, "");
  return [familiar, tag ?? NO_NAME];
}

/** A name in its parts; an imported root file system's has none. */
function referenceOf(name: string): Reference | undefined {
  const reference = tryReference(name);
  return reference !== undefined && formatReference(reference) === name ? reference : undefined;
}

function isWanted({ name }: Image, wanted: string): boolean {
  if (name === wanted) return true;
  const [own, other] = [referenceOf(name), tryReference(wanted)];
  if (own === undefined || other === undefined || own.domain !== other.domain || own.path !== other.path) return false;
  const isExact = wanted.includes("@") || /:[^/]*$/.test(wanted);
  return !isExact || formatReference(other) === name;
}
