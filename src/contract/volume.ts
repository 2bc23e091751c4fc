/** Named volumes: disks of their own with an ext4 file system, which outlive the VMs that mount them. */
import { z } from "zod";
import { NAME_PATTERN } from "./ids.ts";

/** Smallest and largest volume, in bytes: what ext4 with a journal needs, and half of the largest file that ext4 itself can hold. */
export const VOLUME_MIN_BYTES = 16 * 2 ** 20;
export const VOLUME_MAX_BYTES = 8 * 2 ** 40;

/** Size of a volume that asks for none. It takes space only as it is filled. */
export const VOLUME_DEFAULT_BYTES = 10 * 2 ** 30;

const name = z
  .string()
  .regex(new RegExp(NAME_PATTERN), "a volume's name has letters, digits, '_', '.', '-', at most 63");
const sizeBytes = z.int().min(VOLUME_MIN_BYTES).max(VOLUME_MAX_BYTES);

/** A volume as listed and inspected. */
export const Volume = z.object({
  name: z.string(),
  createdAt: z.string(),
  /** Of the disk that a VM sees. */
  sizeBytes: z.int(),
  /** What it takes on the host. */
  allocatedBytes: z.int(),
  labels: z.record(z.string(), z.string()),
  /** Made for one VM that named no volume; goes with that VM if the VM removes itself. */
  anonymous: z.boolean(),
  /** Id of the VM that has it, null if none has. */
  vmId: z.string().nullable(),
});
export type Volume = z.infer<typeof Volume>;

/** A new volume. */
export const CreateVolumeRequest = z.strictObject({
  /** Default: a name of its own making. */
  name: name.optional(),
  /** Rounded up to a MiB; default 10 GiB. */
  sizeBytes: sizeBytes.optional(),
  labels: z.record(z.string().max(255), z.string().max(4096)).optional(),
});
export type CreateVolumeRequest = z.infer<typeof CreateVolumeRequest>;

/** A new size of a volume that no VM has: at least the one it has. */
export const ResizeVolumeRequest = z.strictObject({ sizeBytes });
export type ResizeVolumeRequest = z.infer<typeof ResizeVolumeRequest>;
