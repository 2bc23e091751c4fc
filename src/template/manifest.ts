/** A template's manifest: what it is, what it fits, and the checksums of its files. */
import { z } from "zod";
import { MayflyError } from "../contract/errors.ts";
import { FingerprintSchema, Sha256Schema } from "../contract/fingerprint.ts";
import { sealJson, unsealJson } from "../sys/sealed-json.ts";
import { ApplicationSchema } from "./application.ts";

const MAGIC = "mayfly-template";
const FORMAT = 1;
/** Largest manifest that is read, in bytes: the environment and command of an application are in it. */
export const MAX_MANIFEST_BYTES = 1 << 20;

const Manifest = z.strictObject({
  magic: z.literal(MAGIC),
  format: z.literal(FORMAT),
  id: z.string().regex(/^tpl_[a-z2-7]{26}$/),
  createdAt: z.iso.datetime(),
  buildMs: z.number(),
  fingerprint: FingerprintSchema,
  fingerprintHash: Sha256Schema,
  /** `sha256` covers the pages that are not zero, each with its index, so holes do not matter. */
  memory: z.strictObject({
    sizeBytes: z.int().positive(),
    allocatedBytes: z.int(),
    nonZeroPages: z.int(),
    sha256: Sha256Schema,
  }),
  deviceState: z.strictObject({ sizeBytes: z.int().positive(), sha256: Sha256Schema }),
  /** Absent: kernel and agent only. */
  application: ApplicationSchema.optional(),
  /**
   * Made here of a snapshot with this id, or come along with that snapshot from another host: what is in it is somebody's memory, or somebody else's
   * kernel. Only that snapshot goes on from it; no VM that asks for a size does.
   */
  madeFor: z.strictObject({ kind: z.enum(["promotion", "import"]), snapshotId: z.string().max(64) }).optional(),
});

/** A manifest without what the format itself adds. */
export type TemplateManifest = Omit<z.infer<typeof Manifest>, "magic" | "format">;

/** The manifest's file: JSON whose last member is the SHA-256 of the rest. @throws `limit_reached` beyond what would be read. */
export function encodeManifest(manifest: TemplateManifest): string {
  const text = sealJson({ magic: MAGIC, format: FORMAT, ...manifest });
  const bytes = Buffer.byteLength(text);
  if (bytes <= MAX_MANIFEST_BYTES) return text;
  const what = `Cannot save template ${manifest.id}: its command and environment make a manifest of ${bytes} bytes`;
  throw new MayflyError("limit_reached", `${what}, at most ${MAX_MANIFEST_BYTES} are possible`);
}

/**
 * Reads a manifest.
 * @param origin path it came from, for messages.
 * @throws `template_corrupt` naming every problem.
 */
export function decodeManifest(bytes: Uint8Array, origin: string): TemplateManifest {
  const document = unsealJson(bytes, origin, { schema: Manifest, maxBytes: MAX_MANIFEST_BYTES, corrupt });
  const { magic: _magic, format: _format, ...manifest } = document;
  return manifest;
}

function corrupt(origin: string, problems: readonly string[]): MayflyError {
  return new MayflyError("template_corrupt", `Cannot use the manifest ${origin}: ${problems.join("; ")}`, {
    details: { path: origin, problems },
  });
}
