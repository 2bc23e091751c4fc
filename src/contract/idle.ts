/** What becomes of a VM while nothing is under way in it. Durations are milliseconds. */
import { z } from "zod";

const DAY_MS = 86_400_000;
/** Below this, looking costs more than standing still gains. */
const LEAST_MS = 100;

/** Idle policies: `never`, it runs; `pause`, it stands still until it is wanted; `suspend`, later it also waits in a snapshot, without a QEMU. */
export const IDLE_POLICIES = ["never", "pause", "suspend"] as const;

/** What a request asks for; docs/ARCHITECTURE.md says when a VM is idle. */
export const IdleRequest = z.strictObject({
  policy: z.enum(IDLE_POLICIES),
  /** How long it is idle before its vCPUs are stopped; default 500. */
  pauseAfterMs: z.int().min(LEAST_MS).max(DAY_MS).optional(),
  /** How long before memory that its guest does not use goes back to the host, if there is much of it; default 10,000. */
  refreshAfterMs: z.int().min(LEAST_MS).max(DAY_MS).optional(),
  /** How long before it is suspended, with the policy `suspend`; default 300,000. */
  suspendAfterMs: z.int().min(LEAST_MS).max(DAY_MS).optional(),
});
export type IdleRequest = z.infer<typeof IdleRequest>;

/** A policy with all of its times. */
export const IdlePolicy = z.object({
  policy: z.enum(["pause", "suspend"]),
  pauseAfterMs: z.int(),
  refreshAfterMs: z.int(),
  suspendAfterMs: z.int(),
});
export type IdlePolicy = z.infer<typeof IdlePolicy>;
