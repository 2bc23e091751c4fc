/** A volume's manifest: what is known of it beside its data. The size is that of the data's file, and stands nowhere else. */
import { z } from "zod";
import { MayflyError } from "../contract/errors.ts";
import { NAME_PATTERN } from "../contract/ids.ts";
import { sealJson, unsealJson } from "../sys/sealed-json.ts";

const MAGIC = "mayfly-volume";
const FORMAT = 1;
const MAX_BYTES = 1 << 20;

const Manifest = z.strictObject({
  magic: z.literal(MAGIC),
  format: z.literal(FORMAT),
  name: z.string().regex(new RegExp(NAME_PATTERN)),
  createdAt: z.iso.datetime(),
  labels: z.record(z.string(), z.string()),
  anonymous: z.boolean(),
  /** Whether a VM has had it: until then it takes over what the image has at its mount point. */
  used: z.boolean(),
});

/** A manifest without what the format itself adds. */
export type VolumeManifest = Omit<z.infer<typeof Manifest>, "magic" | "format">;

/** The manifest's file: JSON whose last member is the SHA-256 of the rest. */
export function encodeVolumeManifest(manifest: VolumeManifest): string {
  return sealJson({ magic: MAGIC, format: FORMAT, ...manifest });
}

/** Reads a manifest. @param origin path it came from, for messages. @throws `store_corrupt` naming every problem. */
export function decodeVolumeManifest(text: string, origin: string): VolumeManifest {
  const document = unsealJson(Buffer.from(text), origin, { schema: Manifest, maxBytes: MAX_BYTES, corrupt });
  const { magic: _magic, format: _format, ...manifest } = document;
  return manifest;
}

function corrupt(origin: string, problems: readonly string[]): MayflyError {
  return new MayflyError("store_corrupt", `Cannot use the manifest ${origin}: ${problems.join("; ")}`, {
    details: { path: origin, problems },
  });
}
