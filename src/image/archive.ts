/**
 * Images in files: what `docker save` and `podman save` write (docker-archive, with a `manifest.json`) and OCI layouts (image-spec, "Image
 * Layout"), as a tarball or as a directory.
 */

import { z } from "zod";
import { MayflyError } from "../contract/errors.ts";
import type { ImageLayer } from "../contract/image.ts";
import { formatReference, tryReference } from "../contract/reference.ts";
import { copyPath, identityOf, makeDirectory, readStart } from "../sys/paths.ts";
import { sha256File } from "../sys/publish.ts";
import { uncompressedDigest } from "./compression.ts";
import { DEFAULT_LIMIT_BYTES } from "./content.ts";
import { type IncomingImage, type IncomingLayer, matchLayers, storedLayer } from "./incoming.ts";
import { fileBelow } from "./inside.ts";
import {
  checked,
  choosePlatform,
  digestOf,
  type IndexEntry,
  MAX_DOCUMENT_BYTES,
  parseConfig,
  parseJson,
  parseManifest,
} from "./oci-documents.ts";
import { unpackLayers } from "./unpack.ts";

/** What {@link readArchive} takes. */
export interface ArchiveOptions {
  stateDir: string;
  /** Archive or directory. */
  path: string;
  /** What errors call it. */
  name: string;
  /** A directory of ours, on the file system of the store. */
  workplace: string;
  /** Layers of the store. */
  known: readonly ImageLayer[];
  limitBytes?: number;
  signal?: AbortSignal;
  onProgress?: (readBytes: number) => void;
}

/** An index within an index, and so on: no tool makes more than two. */
const MAX_DEPTH = 4;
const MAX_IMAGES = 1000;

const DockerManifest = z
  .array(
    z.object({
      Config: z.string().min(1).max(4096),
      RepoTags: z.array(z.string()).max(1000).nullish(),
      Layers: z.array(z.string().min(1).max(4096)).max(1000),
    }),
  )
  .max(MAX_IMAGES);

/**
 * Reads the images of an archive or of a directory. Their layers' files are in the workplace or in the store; their digests are still to be
 * checked.
 *
 * @throws MayflyError `file_not_found`, `image_invalid`, `disk_full`, `tool_missing`, `cancelled`.
 */
export async function readArchive(options: ArchiveOptions): Promise<IncomingImage[]> {
  const { path, name } = options;
  const identity = await identityOf(path);
  if (identity === undefined) {
    throw new MayflyError("file_not_found", `Cannot load ${name}: there is no such file`, { details: { path } });
  }
  if (identity.isDirectory) return readLayout(options, path, true);
  if (!identity.isFile) throw invalid(name, "it is neither a file nor a directory");
  const tree = await unpackArchive(options);
  const hasManifest = (await fileBelow(tree, "manifest.json")) !== undefined;
  return hasManifest ? readDockerArchive(options, tree) : readLayout(options, tree, false);
}

async function unpackArchive({
  path,
  name,
  workplace,
  limitBytes = DEFAULT_LIMIT_BYTES,
  ...options
}: ArchiveOptions): Promise<string> {
  const layer = { path, label: `the archive ${name}` };
  await unpackLayers(workplace, [layer], {
    limitBytes,
    ...(options.signal === undefined ? {} : { signal: options.signal }),
    onProgress: (_layer, _layers, bytes) => options.onProgress?.(bytes),
  });
  return `${workplace}/tree`;
}

/** @param copied the directory is somebody else's, who may change it: blobs are taken from copies. */
async function readLayout(options: ArchiveOptions, root: string, copied: boolean): Promise<IncomingImage[]> {
  const layout = new Layout(options, root, copied);
  const index = await layout.document("index.json");
  if (index === undefined) {
    throw invalid(options.name, "it has neither a manifest.json (docker-archive) nor an index.json (OCI layout)");
  }
  const top = parseManifest(index, `${options.name}: index.json`);
  if (top.kind !== "index" || top.entries.length === 0) throw invalid(options.name, "its index.json names no image");
  const images: IncomingImage[] = [];
  for (const entry of top.entries.slice(0, MAX_IMAGES))
    images.push(await layout.image(entry, top.entries.length === 1));
  return images;
}

class Layout {
  readonly #copies = new Map<string, string>();

  constructor(
    readonly options: ArchiveOptions,
    readonly root: string,
    readonly copied: boolean,
  ) {}

  /** A document by its path in the layout. */
  async document(path: string): Promise<Uint8Array | undefined> {
    const found = await this.#find(path);
    return found === undefined ? undefined : readStart(found, MAX_DOCUMENT_BYTES + 1);
  }

  async image(entry: IndexEntry, alone: boolean, depth = 0): Promise<IncomingImage> {
    const names = namesOf(entry);
    const what = names[0] ?? (alone ? this.options.name : `${this.options.name}: ${entry.digest}`);
    const bytes = await this.#blob(entry.digest, what);
    const parsed = parseManifest(bytes, what);
    if (parsed.kind === "index") {
      if (depth >= MAX_DEPTH) throw invalid(what, "its indexes are nested too deeply");
      const image = await this.image(choosePlatform(parsed.entries, what), alone, depth + 1);
      return { ...image, names: names.length > 0 ? names : image.names };
    }
    const config = parseConfig(await this.#blob(parsed.config.digest, what), what);
    const layers = await matchLayers(config, parsed.layers, (digest) => this.#layer(digest), what);
    return { names, config, manifest: bytes, layers };
  }

  async #blob(digest: string, what: string): Promise<Uint8Array> {
    const bytes = await this.document(`blobs/sha256/${digest.slice("sha256:".length)}`);
    if (bytes === undefined) throw invalid(what, `its blob ${digest} is missing`);
    if (digestOf(bytes) !== digest) throw invalid(what, `its blob ${digest} has the digest ${digestOf(bytes)}`);
    return bytes;
  }

  async #layer(digest: string): Promise<string | undefined> {
    const found = await this.#find(`blobs/sha256/${digest.slice("sha256:".length)}`);
    if (found === undefined || !this.copied) return found;
    const known = this.#copies.get(digest);
    if (known !== undefined) return known;
    await makeDirectory(`${this.options.workplace}/blobs`);
    const copy = `${this.options.workplace}/blobs/${digest.slice("sha256:".length)}`;
    await copyPath(found, copy);
    this.#copies.set(digest, copy);
    return copy;
  }

  /** A directory may be made of links, as build tools do; an archive's lead nowhere but into it. */
  async #find(path: string): Promise<string | undefined> {
    if (!this.copied) return fileBelow(this.root, path);
    const whole = `${this.root}/${path}`;
    return (await identityOf(whole))?.isFile ? whole : undefined;
  }
}

/**
 * What an index calls an image: containerd's whole name, or `ref.name`, where some write whole names, some only a name and some only a tag.
 */
function namesOf({ annotations }: IndexEntry): string[] {
  const whole = annotations?.["io.containerd.image.name"];
  const given = whole ?? annotations?.["org.opencontainers.image.ref.name"] ?? "";
  const isTag = whole === undefined && /^(latest|v?\d[^/:@]*)$/.test(given);
  const reference = isTag ? undefined : tryReference(given);
  return reference === undefined ? [] : [formatReference(reference)];
}

async function readDockerArchive(options: ArchiveOptions, tree: string): Promise<IncomingImage[]> {
  const text = await documentBelow(tree, "manifest.json", options.name);
  // An array is no object, which is all that the reader of documents takes.
  const wrapped = new TextEncoder().encode(`{"images":${new TextDecoder().decode(text)}}`);
  const { images } = checked(z.object({ images: DockerManifest }), parseJson(wrapped, options.name), options.name);
  if (images.length === 0) throw invalid(options.name, "its manifest.json names no image");
  const layers = new DockerLayers(options, tree);
  const found: IncomingImage[] = [];
  for (const { Config, RepoTags, Layers } of images) {
    const references = (RepoTags ?? []).flatMap((name) => tryReference(name) ?? []);
    const names = references.map(formatReference);
    const what = names[0] ?? options.name;
    const config = parseConfig(await documentBelow(tree, Config, what), what);
    if (Layers.length !== config.diffIds.length) {
      throw invalid(what, `its manifest has ${Layers.length} layers, its configuration ${config.diffIds.length}`);
    }
    const own: IncomingLayer[] = [];
    for (const [index, path] of Layers.entries()) own.push(await layers.find(path, config.diffIds[index] ?? "", what));
    found.push({ names, config, layers: own });
  }
  return found;
}

/** Layers of a docker-archive: files that no digest names. */
class DockerLayers {
  readonly #digests = new Map<string, string>();

  constructor(
    readonly options: ArchiveOptions,
    readonly tree: string,
  ) {}

  /** A layer that is in the store already is taken from there: it may be compressed otherwise, or not. */
  async find(path: string, diffId: string, what: string): Promise<IncomingLayer> {
    const { stateDir, known, signal, limitBytes = DEFAULT_LIMIT_BYTES } = this.options;
    const file = await fileBelow(this.tree, path);
    if (file === undefined) throw invalid(what, `its layer ${JSON.stringify(path)} is missing`);
    const stored = await storedLayer(stateDir, known, diffId);
    if (stored !== undefined) {
      const found = await uncompressedDigest(file, {
        limitBytes,
        label: path,
        ...(signal === undefined ? {} : { signal }),
      });
      if (found === diffId) return stored;
      throw invalid(
        what,
        `its layer ${JSON.stringify(path)} has the digest ${found}, its configuration says ${diffId}`,
      );
    }
    const digest = this.#digests.get(file) ?? `sha256:${await sha256File(file)}`;
    this.#digests.set(file, digest);
    return { digest, diffId, sizeBytes: (await identityOf(file))?.sizeBytes ?? 0, path: file };
  }
}

async function documentBelow(tree: string, path: string, what: string): Promise<Uint8Array> {
  const found = await fileBelow(tree, path);
  if (found === undefined) throw invalid(what, `its file ${JSON.stringify(path)} is missing`);
  return readStart(found, MAX_DOCUMENT_BYTES + 1);
}

function invalid(what: string, why: string): MayflyError {
  return new MayflyError("image_invalid", `Cannot load ${what}: ${why}`);
}
