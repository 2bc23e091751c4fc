/** A template's manifest: what it is, what it fits, and the checksums of its files. */
import { createHash } from "node:crypto";
import { z } from "zod";
import { MayflyError } from "../contract/errors.ts";
import { ApplicationSchema } from "./application.ts";

const MAGIC = "mayfly-template";
const FORMAT = 1;
/** Largest manifest that is read, in bytes: the environment and command of an application are in it. */
const MAX_BYTES = 1 << 20;

const sha256 = z.string().regex(/^[0-9a-f]{64}$/);

const Fingerprint = z.strictObject({
  qemuVersion: z.string(),
  qemuBinary: z.string(),
  accelerator: z.enum(["kvm", "tcg"]),
  cpuModel: z.string(),
  hostCpu: z.string(),
  machineProfile: z.string(),
  memoryMiB: z.int().positive(),
  vcpus: z.int().positive(),
  kernelSha256: sha256,
  initramfsSha256: sha256,
  kernelCommandLine: z.string(),
});

const Manifest = z.strictObject({
  magic: z.literal(MAGIC),
  format: z.literal(FORMAT),
  id: z.string().regex(/^tpl_[a-z2-7]{26}$/),
  createdAt: z.iso.datetime(),
  buildMs: z.number(),
  fingerprint: Fingerprint,
  fingerprintHash: sha256,
  /** `sha256` covers the pages that are not zero, each with its index, so holes do not matter. */
  memory: z.strictObject({ sizeBytes: z.int().positive(), allocatedBytes: z.int(), nonZeroPages: z.int(), sha256 }),
  deviceState: z.strictObject({ sizeBytes: z.int().positive(), sha256 }),
  /** Absent: kernel and agent only. */
  application: ApplicationSchema.optional(),
});

/** A manifest without what the format itself adds. */
export type TemplateManifest = Omit<z.infer<typeof Manifest>, "magic" | "format">;

/** The manifest's file: JSON whose last member is the SHA-256 of the rest. @throws `limit_reached` beyond what would be read. */
export function encodeManifest(manifest: TemplateManifest): string {
  const body = JSON.stringify({ magic: MAGIC, format: FORMAT, ...manifest });
  const text = `${JSON.stringify({ ...JSON.parse(body), checksum: checksumOf(body) }, null, 2)}\n`;
  const bytes = Buffer.byteLength(text);
  if (bytes <= MAX_BYTES) return text;
  const what = `Cannot save template ${manifest.id}: its command and environment make a manifest of ${bytes} bytes`;
  throw new MayflyError("limit_reached", `${what}, at most ${MAX_BYTES} are possible`);
}

/**
 * Reads a manifest.
 * @param origin path it came from, for messages.
 * @throws `template_corrupt` naming every problem.
 */
export function decodeManifest(bytes: Uint8Array, origin: string): TemplateManifest {
  if (bytes.length > MAX_BYTES) {
    throw corrupt(origin, [`it has ${bytes.length} bytes, a manifest at most ${MAX_BYTES}`]);
  }
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    throw corrupt(origin, [`it is not JSON: ${error instanceof Error ? error.message : error}`]);
  }
  if (typeof json !== "object" || json === null || !("checksum" in json)) {
    throw corrupt(origin, ["it has no checksum"]);
  }
  const { checksum, ...body } = json;
  const actual = checksumOf(JSON.stringify(body));
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

function checksumOf(body: string): string {
  return createHash("sha256").update(body).digest("hex");
}

function corrupt(origin: string, problems: readonly string[]): MayflyError {
  return new MayflyError("template_corrupt", `Cannot use the manifest ${origin}: ${problems.join("; ")}`, {
    details: { path: origin, problems },
  });
}
