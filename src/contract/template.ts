/** Templates: what VMs are cloned from, and how an application is warmed into one. Sizes are bytes, durations milliseconds. */
import { z } from "zod";
import { TmpfsMount } from "./container.ts";
import { NAME_PATTERN } from "./ids.ts";
import { DEVICE_PROFILES } from "./machine.ts";

const name = z.string().regex(new RegExp(NAME_PATTERN), "a name has letters, digits, '_', '.', '-', at most 63");
const text = z
  .string()
  .max(32_768)
  .refine((value) => !value.includes("\0"), "must not contain NUL");
const command = z.array(text).min(1).max(1024);
const port = z.int().min(1).max(65_535);
/** Of a request line: no blanks, no control characters. */
const httpPath = z
  .string()
  .max(4096)
  .regex(/^\/[\x21-\x7e]*$/, "a path of HTTP begins with '/' and has no blanks");
const shape = z.object({ memoryMiB: z.int(), vcpus: z.int() });

/** Most prepared ones of a kind that a template keeps. */
export const POOL_MAX = 256;

/** How many prepared ones a template keeps: warm paused clones, and QEMUs that wait for their device state. */
export const PoolRequest = z.strictObject({
  warm: z.int().min(0).max(POOL_MAX),
  blocked: z.int().min(0).max(POOL_MAX),
  /** Whether a parent is kept that clones are copied from, under emulation; default: if there are warm ones. */
  parent: z.boolean().optional(),
});
export type PoolRequest = z.infer<typeof PoolRequest>;

/** How it is found out that an application is ready. */
export const ReadyProbe = z.discriminatedUnion("kind", [
  /** GET answers with a status from 200 to 399. */
  z.strictObject({ kind: z.literal("http"), port, path: httpPath }),
  /** The port takes a connection. */
  z.strictObject({ kind: z.literal("tcp"), port }),
  /** The command ends with 0; it runs as `exec` runs it. */
  z.strictObject({ kind: z.literal("exec"), command }),
  /** A line of the application's output matches this regular expression (PCRE). */
  z.strictObject({ kind: z.literal("log"), pattern: text.min(1).max(4096) }),
  /** It has started. */
  z.strictObject({ kind: z.literal("started") }),
]);
export type ReadyProbe = z.infer<typeof ReadyProbe>;

/** What an application is exercised with: a GET that has to answer with a status from 200 to 399, or a command that has to end with 0. */
export const WarmUp = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("http"), port, path: httpPath }),
  z.strictObject({ kind: z.literal("exec"), command }),
]);
export type WarmUp = z.infer<typeof WarmUp>;

/** What a template of an application is made of; kept in its manifest, so that it can be built again. */
export const ApplicationRecipe = z.strictObject({
  /** An image of the store, by reference, name, or id. */
  image: z.string().max(1024),
  memoryBytes: z.int().min(1).optional(),
  cpus: z.number().positive().optional(),
  pidsLimit: z.int().min(1).optional(),
  command: command.optional(),
  entrypoint: z.array(text).max(1024).optional(),
  /** Part of the template's memory: of all its clones. */
  env: z.record(z.string().regex(/^[^=\0]+$/, "an environment variable's name has no '=' and no NUL"), text).optional(),
  workdir: text.optional(),
  user: z
    .string()
    .regex(/^[^:\s\0]{1,255}(:[^:\s\0]{1,255})?$/, "a user is USER or USER:GROUP, by name or number")
    .optional(),
  init: z.boolean().optional(),
  readOnly: z.boolean().optional(),
  tmpfs: z.array(TmpfsMount).max(16).optional(),
  capAdd: z.array(z.string().max(64)).max(64).optional(),
  capDrop: z.array(z.string().max(64)).max(64).optional(),
  /** Default: the image's health check, or else its first exposed TCP port, or else that it has started. */
  ready: ReadyProbe.optional(),
  /** Default 60 seconds. */
  readyTimeoutMs: z.int().min(1).max(3_600_000).optional(),
  warmUp: z.array(WarmUp).max(16).optional(),
  /** How often each warm-up is done; default 1. */
  warmUpTimes: z.int().min(1).max(100_000).optional(),
  /** Runs in each clone after the hooks of the image, before the application goes on. */
  postClone: command.optional(),
  /** Longest that each hook may take; default 10 seconds. */
  hookTimeoutMs: z.int().min(1).max(600_000).optional(),
});
export type ApplicationRecipe = z.infer<typeof ApplicationRecipe>;

/**
 * A template to be built. Without an image: that of a size. With one: its application, warmed; `name` is needed then. With neither, but the name
 * of an application's template: that one again, what is given here taking the place of what its recipe has.
 */
export const BuildTemplateRequest = z.strictObject({
  ...ApplicationRecipe.partial().shape,
  name: name.optional(),
  /** Devices of a template of a size: `exec`, `disk`, `net` or `full`; default all of them, so that it serves any VM. */
  profile: z.enum(DEVICE_PROFILES).optional(),
  /** Prepared ones to keep of an application's template; default: as many as before, or none. */
  pool: PoolRequest.optional(),
  /** Build again even if a fitting one exists. */
  force: z.boolean().optional(),
});
export type BuildTemplateRequest = z.infer<typeof BuildTemplateRequest>;

/** The application in a template. */
export const TemplateApplication = z.object({
  /** Name and id of its image when the template was built. */
  image: z.string(),
  imageId: z.string(),
  /** Of the image's contents. */
  digest: z.string(),
  /** Program and arguments of the main process. */
  command: z.array(z.string()),
  workdir: z.string(),
  user: z.string(),
  memoryBytes: z.int(),
  cpus: z.number(),
  /** TCP ports that the image exposes. */
  ports: z.array(z.int()),
  /** How it was found ready. */
  ready: ReadyProbe,
  /** What runs in each clone before the application goes on, in this order: files of the image, then the recipe's own command. */
  hooks: z.array(z.array(z.string())),
  /** Why they failed when they were rehearsed, without what a request brings; null: they did not. */
  rehearsal: z.string().nullable(),
  recipe: ApplicationRecipe,
  /** Milliseconds from its start until it was ready, and of its warm-up. */
  readyMs: z.number(),
  warmUpMs: z.number(),
});
export type TemplateApplication = z.infer<typeof TemplateApplication>;

/** A template as listed and inspected. */
export const Template = z.object({
  id: z.string(),
  name: z.string().nullable(),
  createdAt: z.string(),
  lastUsedAt: z.string().nullable(),
  shape,
  /** The devices that it and all of its clones have. */
  profile: z.enum(DEVICE_PROFILES),
  fingerprint: z.record(z.string(), z.union([z.string(), z.number()])),
  fingerprintHash: z.string(),
  /** Whether it fits this host's current QEMU, kernel and agent. */
  compatible: z.boolean(),
  /** What does not fit, one entry each. */
  differences: z.array(z.string()),
  memory: z.object({
    sizeBytes: z.int(),
    allocatedBytes: z.int(),
    sha256: z.string(),
  }),
  deviceStateBytes: z.int(),
  /** Milliseconds that building it took. */
  buildMs: z.number(),
  /** The application that runs in its clones from the start; null: none. */
  application: TemplateApplication.nullable(),
  /** Prepared ones that it is to keep; null: as the daemon is configured. */
  pool: PoolRequest.nullable(),
});
export type Template = z.infer<typeof Template>;

/** Result of checking a template's files against its manifest. */
export const VerifyResult = z.object({
  id: z.string(),
  ok: z.boolean(),
  problems: z.array(z.string()),
});
export type VerifyResult = z.infer<typeof VerifyResult>;
