/** A fingerprint as manifests hold it. */
import { z } from "zod";
import type { Fingerprint } from "./machine.ts";

/** SHA-256 in lower-case hexadecimal. */
export const Sha256Schema = z.string().regex(/^[0-9a-f]{64}$/);

/** All that must be equal between what was saved and the QEMU that loads it. */
export const FingerprintSchema = z.strictObject({
  qemuVersion: z.string(),
  qemuBinary: z.string(),
  accelerator: z.enum(["kvm", "tcg"]),
  cpuModel: z.string(),
  hostCpu: z.string(),
  machineProfile: z.string(),
  memoryMiB: z.int().positive(),
  vcpus: z.int().positive(),
  kernelSha256: Sha256Schema,
  initramfsSha256: Sha256Schema,
  kernelCommandLine: z.string(),
}) satisfies z.ZodType<Fingerprint>;
