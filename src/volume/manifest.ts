/** A volume's manifest: what is known of it beside its data. The size is that of the data's file, and stands nowhere else. */
import { createHash } from "node:crypto";
import { z } from "zod";
import { MayflyError } from "../contract/errors.ts";
import { NAME_PATTERN } from "../contract/ids.ts";

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
  const body = { magic: MAGIC, format: FORMAT, ...manifest };
  return `${JSON.stringify({ ...body, checksum: checksumOf(body) }, null, 2)}\n`;
}

/** Reads a manifest. @param origin path it came from, for messages. @throws `store_corrupt` naming every problem. */
export function decodeVolumeManifest(text: string, origin: string): VolumeManifest {
  if (text.length > MAX_BYTES)
    throw corrupt(origin, [`it has ${text.length} characters, at most ${MAX_BYTES} are read`]);
  const json = parse(text, origin);
  if (typeof json !== "object" || json === null || !("checksum" in json)) throw corrupt(origin, ["it has no checksum"]);
  const { checksum, ...body } = json;
  const actual = checksumOf(body);
  if (checksum !== actual) throw corrupt(origin, [`its checksum is ${checksum}, its contents have ${actual}`]);
  const parsed = Manifest.safeParse(body);
  if (!parsed.success) {
    throw corrupt(
      origin,
      parsed.error.issues.map((issue) => `${issue.path.join(".") || "the whole"}: ${issue.message}`),
    );
  }
  const { magic: _magic, format: _format, ...manifest } = parsed.data;
  return manifest;
}

function parse(text: string, origin: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw corrupt(origin, [`it is not JSON: ${error instanceof Error ? error.message : error}`]);
  }
}

function checksumOf(body: object): string {
  return createHash("sha256").update(JSON.stringify(body)).digest("hex");
}

function corrupt(origin: string, problems: readonly string[]): MayflyError {
  return new MayflyError("store_corrupt", `Cannot use the manifest ${origin}: ${problems.join("; ")}`, {
    details: { path: origin, problems },
  });
}
