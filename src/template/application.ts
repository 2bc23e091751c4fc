/** The part of a manifest that is about the application in a template: what a clone needs to go on with it. */
import { z } from "zod";
import { HealthCheck } from "../contract/container.ts";
import { ApplicationRecipe, ReadyProbe } from "../contract/template.ts";

const id = z
  .int()
  .min(0)
  .max(2 ** 32 - 2);
const offset = z.int().min(0);

/** See {@link ApplicationPart}. */
export const ApplicationSchema = z.strictObject({
  /** The image that is its root disk. `digest` is that of its contents, `configDigest` of its configuration. */
  image: z.strictObject({
    name: z.string(),
    id: z.string(),
    digest: z.string(),
    configDigest: z.string().nullable(),
    fstype: z.enum(["erofs", "ext4"]),
  }),
  /** The main process as the agent knows it; what it printed before those offsets is not its clones'. */
  main: z.strictObject({ object: z.int().min(1), pid: z.int().min(1), output: offset, error: offset }),
  argv: z.array(z.string()).min(1),
  /** How processes run in it unless a request says otherwise; `capabilities` is a mask in decimal. */
  process: z.strictObject({
    env: z.record(z.string(), z.string()),
    workdir: z.string(),
    user: z.string(),
    capabilities: z.string().regex(/^\d{1,20}$/),
  }),
  user: z.strictObject({ uid: id, gid: id, groups: z.array(id), home: z.string() }),
  memoryBytes: z.int().positive(),
  cpus: z.number().positive(),
  /** Most processes; 0: no limit. */
  pids: z.int().min(0),
  labels: z.record(z.string(), z.string()),
  stopSignal: z.int().min(1).max(64),
  health: HealthCheck.nullable(),
  /** TCP ports that the image exposes. */
  ports: z.array(z.int()),
  ready: ReadyProbe,
  /** Programs of the image that run in each clone before the application goes on, in this order. */
  hooks: z.array(z.string().startsWith("/")),
  /** Why they failed when they were rehearsed; null: they did not. */
  rehearsal: z.string().nullable(),
  recipe: ApplicationRecipe,
  readyMs: z.number(),
  warmUpMs: z.number(),
});

/** The application in a template. */
export type ApplicationPart = z.infer<typeof ApplicationSchema>;
