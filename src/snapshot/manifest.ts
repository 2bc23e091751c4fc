/** A snapshot's manifest: what it is, what it stands on, and the checksums of its files. */
import { z } from "zod";
import { MayflyError } from "../contract/errors.ts";
import { FingerprintSchema, Sha256Schema } from "../contract/fingerprint.ts";
import { sealJson, unsealJson } from "../sys/sealed-json.ts";

const MAGIC = "mayfly-snapshot";
const FORMAT = 1;
/** Largest manifest in bytes: what is needed to go on with the VM is in it, its environment among that. */
export const MAX_MANIFEST_BYTES = 1 << 20;
/** Largest device state that is loaded. A two-vCPU VM's has 11 KB. */
export const MAX_DEVICE_STATE_BYTES = 1 << 20;
/** A machine has no more writable disks than these. */
const MAX_DISKS = 8;

/** Largest guest memory that is believed, in MiB: 1 TiB. */
const MAX_MEMORY_MIB = 2 ** 20;

const sizeBytes = z.int().nonnegative();

const Disk = z.strictObject({
  /** The machine's slot that it sits in. */
  slot: z.string().regex(/^[a-z][a-z0-9-]{0,31}$/),
  /** Name in the directory `disks`. */
  file: z.string().regex(/^[a-z][a-z0-9-]{0,31}\.(raw|qcow2)$/),
  sizeBytes,
  /** SHA-256 over the pages that are not zero, each with its index, as of a template's memory. */
  sha256: Sha256Schema,
  format: z.enum(["raw", "qcow2"]),
});

/** A disk of a snapshot. */
export type SnapshotDisk = z.infer<typeof Disk>;

const memoryFits = ({ fingerprint, memory }: { fingerprint: { memoryMiB: number }; memory: { sizeBytes: number } }) =>
  memory.sizeBytes === fingerprint.memoryMiB * 2 ** 20 && fingerprint.memoryMiB <= MAX_MEMORY_MIB;
const disksFit = (disks: { slot: string; file: string; format: string }[]) =>
  new Set(disks.map(({ slot }) => slot)).size === disks.length &&
  disks.every(({ slot, file, format }) => file === `${slot}.${format}`);

const Base = z
  .strictObject({
    id: z.string().regex(/^tpl_[a-z2-7]{26}$/),
    fingerprint: FingerprintSchema,
    fingerprintHash: Sha256Schema,
    memory: z.strictObject({ sizeBytes: z.int().positive(), sha256: Sha256Schema }),
  })
  .refine(memoryFits, "the size of its memory is not that of its fingerprint");

/** The template that a snapshot's pages are laid over. */
export type SnapshotBase = z.infer<typeof Base>;

const Manifest = z.strictObject({
  magic: z.literal(MAGIC),
  format: z.literal(FORMAT),
  id: z.string().regex(/^snap_[a-z2-7]{26}$/),
  createdAt: z.iso.datetime(),
  kind: z.enum(["checkpoint", "suspended"]),
  base: Base,
  pages: z.strictObject({
    sizeBytes: z.int().positive(),
    count: z.int().nonnegative(),
    zeroCount: z.int().nonnegative(),
    sha256: Sha256Schema,
  }),
  deviceState: z.strictObject({ sizeBytes: z.int().positive().max(MAX_DEVICE_STATE_BYTES), sha256: Sha256Schema }),
  disks: z.array(Disk).max(MAX_DISKS).refine(disksFit, "two are in one slot, or one is not named after its slot"),
  /** What is needed to go on with the VM; the engine's own, which checks it. */
  vm: z.unknown(),
});

/** A manifest without what the format itself adds. */
export type SnapshotManifest = Omit<z.infer<typeof Manifest>, "magic" | "format">;

/** The manifest's file: JSON whose last member is the SHA-256 of the rest. @throws `limit_reached` beyond what would be read. */
export function encodeSnapshotManifest(manifest: SnapshotManifest): string {
  const text = sealJson({ magic: MAGIC, format: FORMAT, ...manifest });
  const bytes = Buffer.byteLength(text);
  if (bytes <= MAX_MANIFEST_BYTES) return text;
  const what = `Cannot save snapshot ${manifest.id}: its VM's command and environment make a manifest of ${bytes} bytes`;
  throw new MayflyError("limit_reached", `${what}, at most ${MAX_MANIFEST_BYTES} are possible`);
}

/** Reads a manifest. @param origin path it came from, for messages. @throws `snapshot_corrupt` naming every problem. */
export function decodeSnapshotManifest(bytes: Uint8Array, origin: string): SnapshotManifest {
  const kind = { schema: Manifest, maxBytes: MAX_MANIFEST_BYTES, corrupt };
  const { magic: _magic, format: _format, ...manifest } = unsealJson(bytes, origin, kind);
  return manifest;
}

function corrupt(origin: string, problems: readonly string[]): MayflyError {
  return new MayflyError("snapshot_corrupt", `Cannot use the manifest ${origin}: ${problems.join("; ")}`, {
    details: { path: origin, problems },
  });
}
