/** Images: what the store has of them, and what an image says about the processes that run in it (OCI image configuration). */
import { z } from "zod";
import { HealthCheck } from "./container.ts";

/** The part of an OCI image configuration that is honoured; what an image does not say is absent. */
export const ImageConfig = z.object({
  entrypoint: z.array(z.string()).optional(),
  cmd: z.array(z.string()).optional(),
  env: z.array(z.string()).optional(),
  workingDir: z.string().optional(),
  /** `user[:group]`, by name or number, as in the image. */
  user: z.string().optional(),
  /** Signal name or number. */
  stopSignal: z.string().optional(),
  /** e.g. `8080/tcp`. */
  exposedPorts: z.array(z.string()).optional(),
  volumes: z.array(z.string()).optional(),
  labels: z.record(z.string(), z.string()).optional(),
  healthCheck: HealthCheck.optional(),
});
export type ImageConfig = z.infer<typeof ImageConfig>;

/** An image of the store under one of its names. */
export const Image = z.object({
  id: z.string(),
  /** Whole reference (`localhost:5000/app:1`), or the name of an imported root file system. */
  name: z.string(),
  /** Of its contents: images with the same root file system share it. */
  digest: z.string(),
  fstype: z.enum(["erofs", "ext4"]),
  sizeBytes: z.int(),
  createdAt: z.string(),
  /** Digest of the OCI configuration, which docker calls the image's id; null for an imported root file system. */
  configDigest: z.string().nullable(),
  /** Digest of the manifest in the registry it came from, if it came from one. */
  manifestDigest: z.string().nullable(),
  architecture: z.string().nullable(),
  config: ImageConfig,
});
export type Image = z.infer<typeof Image>;
