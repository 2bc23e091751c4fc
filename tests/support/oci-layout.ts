/** For tests: images made by hand, as OCI layouts and docker-archives, right or wrong in any way. */
import { createHash } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type BuiltEntry, buildTar } from "../../src/image/tar-builder.ts";
import { runTool } from "../../src/sys/tool.ts";

/** A layer: what its tarball has, or its bytes as they are. */
export type HandMadeLayer = readonly BuiltEntry[] | Uint8Array;

/** An image made by hand. */
export interface HandMadeImage {
  layers: readonly HandMadeLayer[];
  /** `config` of its configuration. */
  config?: Record<string, unknown>;
  /** Fields of the configuration besides, or instead of, the right ones. */
  document?: Record<string, unknown>;
  /** Fields of the manifest. */
  manifest?: Record<string, unknown>;
  /** `gzip` and `zstd` compress the layers. */
  compression?: "gzip" | "zstd";
  /** Name in the layout. */
  name?: string;
}

interface Descriptor {
  mediaType: string;
  digest: string;
  size: number;
  annotations?: Record<string, string>;
  platform?: Record<string, string>;
}

const TYPE = "application/vnd.oci.image";

/** SHA-256 as descriptors have it. */
export function digestOf(bytes: Uint8Array | string): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

/** The uncompressed tarball of a layer. */
export function tarballOf(layer: HandMadeLayer): Uint8Array {
  return layer instanceof Uint8Array ? layer : buildTar(layer);
}

/** Writes images into a layout. @returns digests of their manifests. */
export async function writeLayout(directory: string, images: readonly HandMadeImage[]): Promise<string[]> {
  mkdirSync(join(directory, "blobs/sha256"), { recursive: true });
  writeFileSync(join(directory, "oci-layout"), JSON.stringify({ imageLayoutVersion: "1.0.0" }));
  const manifests: Descriptor[] = [];
  for (const image of images) manifests.push(await writeImage(directory, image));
  writeIndex(directory, manifests);
  return manifests.map(({ digest }) => digest);
}

/** Writes a layout's index of documents that are there. */
export function writeIndex(directory: string, manifests: readonly Descriptor[]): void {
  writeFileSync(join(directory, "index.json"), JSON.stringify({ schemaVersion: 2, manifests }));
}

/** Writes one image's blobs. @returns what an index says of it. */
export async function writeImage(directory: string, image: HandMadeImage): Promise<Descriptor> {
  const tarballs = image.layers.map(tarballOf);
  const layers: Descriptor[] = [];
  for (const tarball of tarballs) {
    const bytes = await compressed(tarball, image.compression);
    const suffix = image.compression === undefined ? "" : `+${image.compression}`;
    layers.push({ mediaType: `${TYPE}.layer.v1.tar${suffix}`, ...writeBlob(directory, bytes) });
  }
  const document = {
    architecture: "amd64",
    os: "linux",
    created: "2024-05-06T07:08:09Z",
    config: image.config ?? {},
    rootfs: { type: "layers", diff_ids: tarballs.map(digestOf) },
    ...image.document,
  };
  const config = { mediaType: `${TYPE}.config.v1+json`, ...writeBlob(directory, JSON.stringify(document)) };
  const mediaType = `${TYPE}.manifest.v1+json`;
  const manifest = { schemaVersion: 2, mediaType, config, layers, ...image.manifest };
  const annotations =
    image.name === undefined ? {} : { annotations: { "org.opencontainers.image.ref.name": image.name } };
  return { mediaType, ...writeBlob(directory, JSON.stringify(manifest)), ...annotations };
}

/** Writes a blob. */
export function writeBlob(directory: string, bytes: Uint8Array | string): { digest: string; size: number } {
  const digest = digestOf(bytes);
  writeFileSync(join(directory, "blobs/sha256", digest.slice("sha256:".length)), bytes);
  return { digest, size: Buffer.byteLength(bytes) };
}

/** A docker-archive: `manifest.json`, configurations, layers. */
export function dockerArchive(images: readonly (HandMadeImage & { tags?: string[] })[]): BuiltEntry[] {
  const entries: BuiltEntry[] = [];
  const manifest = images.map((image) => {
    const tarballs = image.layers.map(tarballOf);
    const document = {
      ...{ architecture: "amd64", os: "linux", config: image.config ?? {} },
      ...{ rootfs: { type: "layers", diff_ids: tarballs.map(digestOf) }, ...image.document },
    };
    const config = JSON.stringify(document);
    const Config = `${digestOf(config).slice("sha256:".length)}.json`;
    entries.push({ name: Config, content: config });
    const Layers = tarballs.map((tarball) => {
      const name = `${digestOf(tarball).slice("sha256:".length)}/layer.tar`;
      entries.push({ name, content: tarball });
      return name;
    });
    return { Config, RepoTags: image.tags ?? null, Layers };
  });
  return [...entries, { name: "manifest.json", content: JSON.stringify(manifest) }];
}

async function compressed(bytes: Uint8Array, compression: "gzip" | "zstd" | undefined): Promise<Uint8Array> {
  if (compression === undefined) return bytes;
  if (compression === "gzip") return Bun.gzipSync(new Uint8Array(bytes));
  return Bun.zstdCompressSync(new Uint8Array(bytes));
}

/** Packs a directory as a tarball, as oci-archives are. */
export async function packed(directory: string, archive: string): Promise<string> {
  await runTool(["tar", "-C", directory, "-cf", archive, "."]);
  return archive;
}

/** Entries of hand-made layers. */
export const dir = (name: string, more: Partial<BuiltEntry> = {}): BuiltEntry => ({
  name,
  type: "5",
  mode: 0o755,
  ...more,
});
export const link = (name: string, target: string): BuiltEntry => ({ name, type: "2", link: target });
export const hard = (name: string, target: string): BuiltEntry => ({ name, type: "1", link: target });
