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

/** The name of an image whose own has moved to another. */
export const NO_NAME = "<none>";

/** A layer: its blob as it came (compressed or not), and the digest of its uncompressed tarball. */
export const ImageLayer = z.object({ digest: z.string(), diffId: z.string(), sizeBytes: z.int() });
export type ImageLayer = z.infer<typeof ImageLayer>;

/** An image of the store under one of its names. */
export const Image = z.object({
  id: z.string(),
  /** Whole reference (`localhost:5000/app:1`), the name of an imported root file system, or {@link NO_NAME}. */
  name: z.string(),
  /** Of its contents: images with the same root file system share it. */
  digest: z.string(),
  fstype: z.enum(["erofs", "ext4"]),
  sizeBytes: z.int(),
  createdAt: z.string(),
  /** Digest of the OCI configuration, which docker calls the image's id; null for an imported root file system. */
  configDigest: z.string().nullable(),
  /** Digest of its manifest; null for an imported root file system. */
  manifestDigest: z.string().nullable(),
  /** Digest that a registry knows it by under its name: of the index, where there are several platforms, or of the manifest. */
  repoDigest: z.string().nullable(),
  architecture: z.string().nullable(),
  /** When it was built, as its configuration says. */
  builtAt: z.string().nullable(),
  /** From the lowest to the topmost; none of an imported root file system. */
  layers: z.array(ImageLayer),
  config: ImageConfig,
});
export type Image = z.infer<typeof Image>;

/** An image with its whole OCI configuration document, as it came; null for an imported root file system. */
export const ImageDetails = z.object({ ...Image.shape, document: z.record(z.string(), z.unknown()).nullable() });
export type ImageDetails = z.infer<typeof ImageDetails>;

const absolute = z
  .string()
  .max(4095)
  .regex(/^\/[^\0]*$/, "a path on the daemon's host is absolute");
const reference = z.string().min(1).max(4096);
const noNul = (text: string) => !text.includes("\0");

/** How a registry is reached. Files are the daemon's host's. */
const REGISTRY_ACCESS = {
  credentials: z.strictObject({ username: z.string().min(1).max(1024), password: z.string().max(8192) }).optional(),
  /** Credentials as docker and podman keep them (`config.json`, `auth.json`); default: the daemon's user's own. */
  authFile: absolute.optional(),
  /** Directory with `*.crt` (authorities), `*.cert` and `*.key` (client). */
  certDir: absolute.optional(),
  /** Default true; false on the loopback address, where plain HTTP is spoken too. Elsewhere it cannot be false. */
  tlsVerify: z.boolean().optional(),
} as const;

/** An image of a registry. Short names mean what they do to docker. */
export const PullImageRequest = z.strictObject({ reference, ...REGISTRY_ACCESS });
export type PullImageRequest = z.infer<typeof PullImageRequest>;

/** Images of an archive (docker-archive, oci-archive; plain, gzip, xz, zstd) or of a directory (OCI layout). */
export const LoadImageRequest = z.strictObject({ path: absolute });
export type LoadImageRequest = z.infer<typeof LoadImageRequest>;

/** An image to be built from a Dockerfile. */
export const BuildImageRequest = z.strictObject({
  /** Directory that the Dockerfile copies from. */
  context: absolute,
  /** Default: `Containerfile` or `Dockerfile` of the context. */
  dockerfile: absolute.optional(),
  /** Names that it gets. */
  tags: z.array(reference).max(64).optional(),
  buildArgs: z
    .record(z.string().regex(/^[^=\0]+$/, "a build argument's name has no '=' and no NUL"), z.string().refine(noNul))
    .optional(),
  /** Stage to stop after. */
  target: z.string().min(1).max(255).refine(noNul).optional(),
  /** Carry out every step, also those that an earlier build has. */
  noCache: z.boolean().optional(),
  ...REGISTRY_ACCESS,
});
export type BuildImageRequest = z.infer<typeof BuildImageRequest>;

/** One more name for an image. */
export const TagImageRequest = z.strictObject({ name: reference });
export type TagImageRequest = z.infer<typeof TagImageRequest>;

export const PruneImagesRequest = z.strictObject({
  /** Also images with names, if no VM uses them; otherwise only those whose name has moved. */
  all: z.boolean().optional(),
});
export type PruneImagesRequest = z.infer<typeof PruneImagesRequest>;
