/** The JSON documents of images: index, manifest and configuration (OCI image-spec v1; docker's schema 2, which they came from). */

import { createHash } from "node:crypto";
import { z } from "zod";
import { MayflyError } from "../contract/errors.ts";
import type { ImageConfig } from "../contract/image.ts";
import { honouredConfig, RawConfig } from "./image-config.ts";

/** Bytes of a document at most, as registries and their clients have it. */
export const MAX_DOCUMENT_BYTES = 4 * 2 ** 20;
const MAX_LAYERS = 1000;
/** The platform of VMs. */
export const PLATFORM = { os: "linux", architecture: "amd64" } as const;

const DIGEST = /^sha256:[0-9a-f]{64}$/;
const Descriptor = z.object({
  mediaType: z.string().max(255).optional(),
  digest: z.string().regex(DIGEST, "is not sha256: and 64 hexadecimal digits"),
  size: z.int().min(0),
});
/** What a document says of another one. */
export type Descriptor = z.infer<typeof Descriptor>;

const IndexEntry = Descriptor.extend({
  platform: z
    .object({ os: z.string(), architecture: z.string(), variant: z.string().optional() })
    .nullish()
    .transform((platform) => platform ?? undefined),
  annotations: z.record(z.string(), z.string()).nullish(),
});
/** An image or a further index in an index. */
export type IndexEntry = z.infer<typeof IndexEntry>;
const Index = z.object({ manifests: z.array(IndexEntry).max(10_000) });
const Manifest = z.object({ config: Descriptor, layers: z.array(Descriptor).max(MAX_LAYERS) });
const Config = z.object({
  architecture: z.string().max(255).optional(),
  os: z.string().max(255).optional(),
  created: z.string().max(255).nullish(),
  config: RawConfig.nullish(),
  rootfs: z.object({
    diff_ids: z.array(z.string().regex(DIGEST, "is not sha256: and 64 hexadecimal digits")).nullish(),
  }),
});

const CONFIG_TYPE = /^application\/vnd\.(oci\.image\.config\.v1|docker\.container\.image\.v1)\+json$/;
const LAYER_TYPE =
  /^application\/vnd\.(oci\.image\.layer\.v1\.tar(\+gzip|\+zstd)?|docker\.image\.rootfs\.diff\.tar(\.gzip|\.zstd)?)$/;

/** A manifest: configuration and layers, from the lowest. */
export type ManifestDocument = z.infer<typeof Manifest>;

/** What a manifest's bytes turn out to be. */
export type TopDocument = { kind: "index"; entries: IndexEntry[] } | ({ kind: "manifest" } & ManifestDocument);

/** A configuration, and what is made of it. */
export interface ConfigDocument {
  bytes: Uint8Array;
  digest: string;
  /** The document whole. */
  document: Record<string, unknown>;
  architecture: string;
  builtAt: string | null;
  diffIds: string[];
  config: ImageConfig;
}

/** SHA-256 of bytes, as documents name them. */
export function digestOf(bytes: Uint8Array): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

/**
 * Reads a manifest or an index.
 * @param what names it in errors.
 * @throws MayflyError `image_invalid`: no JSON, not of these kinds, or of a kind that is no container image.
 */
export function parseManifest(bytes: Uint8Array, what: string): TopDocument {
  const document = parseJson(bytes, what);
  const { mediaType, schemaVersion } = document;
  if (schemaVersion === 1 || String(mediaType ?? "").includes("docker.distribution.manifest.v1+")) {
    throw invalid(what, "its manifest is of docker's schema 1, which no registry should have any more: push it again");
  }
  // A document that is both means something else to each reader.
  if ("manifests" in document && ("layers" in document || "config" in document)) {
    throw invalid(what, "its manifest is an index and an image at once");
  }
  if ("manifests" in document) return { kind: "index", entries: checked(Index, document, what).manifests };
  const manifest = checked(Manifest, document, what);
  if (manifest.config.mediaType !== undefined && !CONFIG_TYPE.test(manifest.config.mediaType)) {
    throw invalid(what, `it is no container image, but ${JSON.stringify(manifest.config.mediaType)}`);
  }
  const odd = manifest.layers.find(({ mediaType: type }) => type !== undefined && !LAYER_TYPE.test(type));
  if (odd !== undefined) throw invalid(what, `its layer ${odd.digest} is of the type ${JSON.stringify(odd.mediaType)}`);
  return { kind: "manifest", ...manifest };
}

/**
 * The entry of an index for VMs.
 * @throws MayflyError `image_invalid` naming the platforms that there are.
 */
export function choosePlatform(entries: readonly IndexEntry[], what: string): IndexEntry {
  const fitting = entries.filter(
    ({ platform }) => platform?.os === PLATFORM.os && platform.architecture === PLATFORM.architecture,
  );
  const chosen = fitting.find(({ platform }) => (platform?.variant ?? "v1") === "v1") ?? fitting[0];
  if (chosen !== undefined) return chosen;
  // Without platforms there is nothing to choose by, and nothing to choose with one entry only.
  const [only, ...others] = entries.filter(({ platform }) => platform === undefined);
  if (only !== undefined && others.length === 0) return only;
  const known = entries.flatMap(({ platform }) => (platform === undefined ? [] : [platformText(platform)]));
  const there = [...new Set(known)].filter((text) => text !== "unknown/unknown");
  throw invalid(
    what,
    `it is not for ${platformText(PLATFORM)}, but for ${there.length === 0 ? "nothing" : there.join(", ")}`,
  );
}

/**
 * Reads a configuration.
 * @throws MayflyError `image_invalid`, also for another platform's.
 */
export function parseConfig(bytes: Uint8Array, what: string): ConfigDocument {
  const document = parseJson(bytes, what);
  const parsed = checked(Config, document, what);
  const { architecture = "", os = "" } = parsed;
  if (architecture !== PLATFORM.architecture || os !== PLATFORM.os) {
    throw invalid(what, `it is not for ${platformText(PLATFORM)}, but for ${platformText({ os, architecture })}`);
  }
  const diffIds = parsed.rootfs.diff_ids ?? [];
  if (diffIds.length > MAX_LAYERS) throw invalid(what, `it has ${diffIds.length} layers, the limit is ${MAX_LAYERS}`);
  return {
    ...{ bytes, digest: digestOf(bytes), document, architecture, builtAt: timeOf(parsed.created), diffIds },
    config: honouredConfig(parsed.config ?? {}, what),
  };
}

/** A manifest of docker's schema 2 for what came without one. */
export function makeManifest(
  config: Pick<ConfigDocument, "bytes" | "digest">,
  layers: readonly { digest: string; sizeBytes: number }[],
): Uint8Array {
  const document = {
    schemaVersion: 2,
    mediaType: "application/vnd.docker.distribution.manifest.v2+json",
    config: {
      mediaType: "application/vnd.docker.container.image.v1+json",
      size: config.bytes.length,
      digest: config.digest,
    },
    layers: layers.map(({ digest, sizeBytes }) => ({
      mediaType: "application/vnd.docker.image.rootfs.diff.tar.gzip",
      size: sizeBytes,
      digest,
    })),
  };
  return new TextEncoder().encode(JSON.stringify(document));
}

/** Reads an object of JSON, bounded. The text of the parser's error is not passed on: it quotes what may be none of the caller's business. */
export function parseJson(bytes: Uint8Array, what: string): Record<string, unknown> {
  if (bytes.length > MAX_DOCUMENT_BYTES) throw invalid(what, `its document has ${bytes.length} bytes`);
  try {
    const value: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    if (typeof value === "object" && value !== null && !Array.isArray(value))
      return Object.fromEntries(Object.entries(value));
  } catch {
    // Said below.
  }
  throw invalid(what, "its document is no JSON object");
}

/** Checks a document against a schema. @throws MayflyError `image_invalid` with the first problem. */
export function checked<Schema extends z.ZodType>(schema: Schema, document: unknown, what: string): z.output<Schema> {
  const result = schema.safeParse(document);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw invalid(what, `${issue?.path.map(String).join(".")}: ${issue?.message}`);
}

function timeOf(created: string | null | undefined): string | null {
  const ms = Date.parse(created ?? "");
  return Number.isNaN(ms) ? null : new Date(ms).toISOString();
}

function platformText({
  os,
  architecture,
  variant,
}: {
  os: string;
  architecture: string;
  variant?: string | undefined;
}): string {
  const text = `${os === "" ? "?" : os}/${architecture === "" ? "?" : architecture}`;
  return (variant === undefined ? text : `${text}/${variant}`).slice(0, 100);
}

function invalid(what: string, why: string): MayflyError {
  return new MayflyError("image_invalid", `Cannot use ${what}: ${why}`);
}
