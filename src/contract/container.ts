/** What a container is given beside its image: ports, mounts, health check, restart policy, limits. Sizes are bytes, durations milliseconds. */
import { z } from "zod";
import { NAME_PATTERN } from "./ids.ts";

const absolute = z
  .string()
  .max(4095)
  .regex(/^\/[^\0]*$/, "the path must be absolute");
const port = z.int().min(1).max(65_535);

/** A TCP port of the host that leads to one of the VM. */
export const PortMapping = z.strictObject({
  /** Address of the host to listen on; default 0.0.0.0. */
  hostIp: z.union([z.ipv4(), z.ipv6()]).optional(),
  /** 0: any free one; the VM's document then says which. */
  hostPort: z.int().min(0).max(65_535),
  guestPort: port,
});
export type PortMapping = z.infer<typeof PortMapping>;

/** A named volume (`volume`), or a directory of the host as it is now (`directory`, read-only). */
export const VolumeMount = z.strictObject({
  source: z.union([
    z.strictObject({
      volume: z.string().regex(new RegExp(NAME_PATTERN), "a volume's name has letters, digits, '_', '.', '-'"),
    }),
    z.strictObject({ directory: absolute }),
  ]),
  target: absolute,
  readOnly: z.boolean().optional(),
  /** The volume was not named by anybody: it is made for this VM, and removed with it if that removes itself. */
  anonymous: z.boolean().optional(),
});
export type VolumeMount = z.infer<typeof VolumeMount>;

/** A tmpfs in the VM. */
export const TmpfsMount = z.strictObject({
  target: absolute,
  /** Default: half of the VM's memory. */
  sizeBytes: z.int().min(4096).optional(),
  /** Permissions of its root, default 0o1777. */
  mode: z.int().min(0).max(0o7777).optional(),
  readOnly: z.boolean().optional(),
  exec: z.boolean().optional(),
});
export type TmpfsMount = z.infer<typeof TmpfsMount>;

/** How a VM's health is asked for: a command in it, exit code 0 for healthy. */
export const HealthCheck = z.strictObject({
  /**
   * As in an image: `["CMD", program, ...]`, `["CMD-SHELL", text]`, or `["NONE"]` for no check whatever the image says. Absent in a request:
   * the image's.
   */
  test: z.array(z.string()).min(1).optional(),
  intervalMs: z.int().min(1).optional(),
  timeoutMs: z.int().min(1).optional(),
  startPeriodMs: z.int().min(0).optional(),
  startIntervalMs: z.int().min(1).optional(),
  retries: z.int().min(1).optional(),
});
export type HealthCheck = z.infer<typeof HealthCheck>;

/** What becomes of a VM whose main process ends. */
export const RestartPolicy = z.strictObject({
  name: z.enum(["no", "on-failure", "always", "unless-stopped"]),
  /** Of `on-failure`: how often; absent: without end. */
  maximumRetries: z.int().min(0).optional(),
});
export type RestartPolicy = z.infer<typeof RestartPolicy>;

/** Health of a VM that has a check. */
export const Health = z.object({
  status: z.enum(["starting", "healthy", "unhealthy"]),
  failingStreak: z.int(),
  /** Exit code and output (at most 4 KiB) of the last check. */
  lastExitCode: z.int().nullable(),
  lastOutput: z.string(),
});
export type Health = z.infer<typeof Health>;

/** A port mapping as it is: listening. */
export const PublishedPort = z.object({ hostIp: z.string(), hostPort: port, guestPort: port });
export type PublishedPort = z.infer<typeof PublishedPort>;

/** Fields of a request for a VM that are about its container. */
export const CONTAINER_REQUEST = {
  /** An OCI image of the store, by reference, name, or id. Its configuration is honoured. */
  image: z.string().max(1024).optional(),
  /** Whether the image is pulled: `missing` (default), `always` or `never`. */
  pull: z.enum(["missing", "always", "never"]).optional(),
  /** A template by name or id; one of an image comes with its application running. */
  template: z.string().max(255).optional(),
  /** Instead of the image's entrypoint; empty: none. */
  entrypoint: z.array(z.string().max(32_768)).max(1024).optional(),
  readOnly: z.boolean().optional(),
  /** A small init as PID 1, which passes signals on and reaps. */
  init: z.boolean().optional(),
  tmpfs: z.array(TmpfsMount).max(16).optional(),
  /** At most three disks. */
  volumes: z.array(VolumeMount).max(16).optional(),
  /** What is written to the root goes to a disk of this size instead of memory. */
  diskBytes: z
    .int()
    .min(16 * 2 ** 20)
    .optional(),
  ports: z.array(PortMapping).max(256).optional(),
  /** Publish the image's exposed ports on free ports. */
  publishAll: z.boolean().optional(),
  pidsLimit: z.int().min(1).optional(),
  stopSignal: z.int().min(1).max(64).optional(),
  stopGraceMs: z.int().min(0).max(3_600_000).optional(),
  restart: RestartPolicy.optional(),
  health: HealthCheck.optional(),
  /** Capabilities beside docker's default ones, and of those the ones to leave out; `ALL` is all. */
  capAdd: z.array(z.string().max(64)).max(64).optional(),
  capDrop: z.array(z.string().max(64)).max(64).optional(),
  /** Files for /run/secrets, by name, in base64. */
  secrets: z
    .record(
      z.string().regex(new RegExp(NAME_PATTERN), "a secret's name has letters, digits, '_', '.', '-'"),
      z.base64().max(1_500_000),
    )
    .optional(),
} as const;

/** Fields of a VM's document that are about its container. */
export const CONTAINER_VM = {
  /** Reference of its image as it was asked for, and the image's id at that time. */
  image: z.string().nullable(),
  imageId: z.string().nullable(),
  ports: z.array(PublishedPort),
  mounts: z.array(
    z.object({
      kind: z.enum(["volume", "directory", "tmpfs"]),
      source: z.string(),
      target: z.string(),
      readOnly: z.boolean(),
    }),
  ),
  restart: RestartPolicy,
  restartCount: z.int(),
  health: Health.nullable(),
  stopSignal: z.int(),
} as const;
