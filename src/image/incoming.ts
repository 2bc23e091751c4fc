/** An image on its way into the store, wherever it comes from: all of it checked, then kept. */

import { MayflyError } from "../contract/errors.ts";
import type { ImageLayer } from "../contract/image.ts";
import { familiarName } from "../contract/reference.ts";
import { identityOf } from "../sys/paths.ts";
import { blobPath, checkBlob, hasBlob, storeBytes, storeFile } from "./blob-store.ts";
import { uncompressedDigest } from "./compression.ts";
import { type ContentProgress, DEFAULT_LIMIT_BYTES, ensureContent } from "./content.ts";
import { type ConfigDocument, digestOf, makeManifest } from "./oci-documents.ts";
import type { StoredImage } from "./store.ts";

/** A layer as a file on the file system of the store, that nobody else changes. */
export interface IncomingLayer extends ImageLayer {
  path: string;
}

/** An image whose documents have been read. */
export interface IncomingImage {
  /** Whole references; none if nothing names it. */
  names: string[];
  config: ConfigDocument;
  /** As it came; absent if it came without one. */
  manifest?: Uint8Array;
  /** From the lowest. */
  layers: IncomingLayer[];
}

/** What {@link storeImage} takes besides the image. */
export interface StoreOptions {
  stateDir: string;
  /** Layers whose blobs are in the store, checked when they came. */
  known: readonly ImageLayer[];
  /** Most bytes that its files may have in sum; 64 GiB unless told. */
  limitBytes?: number;
  signal?: AbortSignal;
  onProgress?: (progress: ContentProgress) => void;
}

/** An image that is in the store, but has no name there yet. */
export interface KeptImage {
  content: StoredImage;
  config: ConfigDocument;
  manifestDigest: string;
  layers: ImageLayer[];
}

/**
 * Checks an image's blobs against their digests and diff ids, makes its contents, and keeps its blobs. What the store has is neither
 * checked nor made again.
 *
 * @throws MayflyError `image_invalid`, `disk_full`, `root_required`, `tool_missing`, `cancelled`. Blobs that were kept until then are swept
 * when the daemon starts, as nothing refers to them.
 */
export async function storeImage(image: IncomingImage, options: StoreOptions): Promise<KeptImage> {
  const { stateDir, signal, limitBytes = DEFAULT_LIMIT_BYTES } = options;
  const isNew = (layer: IncomingLayer) =>
    !options.known.some(({ digest, diffId }) => digest === layer.digest && diffId === layer.diffId);
  const fresh = image.layers.filter(isNew);
  for (const layer of fresh) {
    if (signal?.aborted) throw new MayflyError("cancelled", "The image was not wanted any more");
    await checkBlob(layer.path, layer.digest);
  }
  const whose = image.names[0] === undefined ? "" : ` of ${familiarName(image.names[0])}`;
  const label = (layer: IncomingLayer) => `layer ${image.layers.indexOf(layer) + 1} of ${image.layers.length}${whose}`;
  const stop = signal === undefined ? {} : { signal };
  const content = await ensureContent({
    ...{ stateDir, limitBytes, ...stop },
    layers: image.layers.map((layer) => ({ path: layer.path, diffId: layer.diffId, label: label(layer) })),
    ...(options.onProgress === undefined ? {} : { onProgress: options.onProgress }),
  });
  // What was unpacked was checked by that.
  for (const layer of content.made ? [] : fresh) {
    const found = await uncompressedDigest(layer.path, { limitBytes, label: label(layer), ...stop });
    if (found === layer.diffId) continue;
    const why = `its uncompressed digest is ${found}, the image's configuration says ${layer.diffId}`;
    throw new MayflyError("image_invalid", `Cannot use ${label(layer)}: ${why}`);
  }
  const layers = image.layers.map(({ digest, diffId, sizeBytes }) => ({ digest, diffId, sizeBytes }));
  const manifest = image.manifest ?? makeManifest(image.config, layers);
  const manifestDigest = digestOf(manifest);
  for (const layer of image.layers) await storeFile(stateDir, layer.digest, layer.path);
  await storeBytes(stateDir, image.config.digest, image.config.bytes);
  await storeBytes(stateDir, manifestDigest, manifest);
  return { content, config: image.config, manifestDigest, layers };
}

/**
 * The layers of a configuration, each with the blob that a manifest names for it.
 * @param pathOf where a blob is; `undefined` if it is missing.
 * @throws MayflyError `image_invalid` if the two do not go together, or a blob is missing or of another size.
 */
export async function matchLayers(
  config: ConfigDocument,
  blobs: readonly { digest: string; size: number }[],
  pathOf: (digest: string) => Promise<string | undefined>,
  what: string,
): Promise<IncomingLayer[]> {
  if (blobs.length !== config.diffIds.length) {
    const counts = `its manifest has ${blobs.length} layers, its configuration ${config.diffIds.length}`;
    throw new MayflyError("image_invalid", `Cannot use ${what}: ${counts}`);
  }
  const layers: IncomingLayer[] = [];
  for (const [index, { digest, size }] of blobs.entries()) {
    const path = await pathOf(digest);
    if (path === undefined)
      throw new MayflyError("image_invalid", `Cannot use ${what}: its layer ${digest} is missing`);
    const sizeBytes = (await identityOf(path))?.sizeBytes ?? 0;
    if (sizeBytes !== size) {
      const sizes = `its layer ${digest} has ${sizeBytes} bytes, its manifest says ${size}`;
      throw new MayflyError("image_invalid", `Cannot use ${what}: ${sizes}`);
    }
    layers.push({ digest, diffId: config.diffIds[index] ?? "", sizeBytes, path });
  }
  return layers;
}

/** The blob that the store has of a layer with a diff id, if it has one. */
export async function storedLayer(
  stateDir: string,
  known: readonly ImageLayer[],
  diffId: string,
): Promise<IncomingLayer | undefined> {
  const layer = known.find((candidate) => candidate.diffId === diffId);
  if (layer === undefined || !(await hasBlob(stateDir, layer.digest, layer.sizeBytes))) return undefined;
  return { ...layer, path: blobPath(stateDir, layer.digest) };
}
