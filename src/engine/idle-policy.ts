/** The times of an idle policy, where a request does not say. */
import type { IdlePolicy, IdleRequest } from "../contract/api.ts";

/** Short enough for a VM to stand still within a second of its last use; see `idle-watch.ts` for what is looked at meanwhile. */
const PAUSE_AFTER_MS = 500;
const REFRESH_AFTER_MS = 10_000;
const SUSPEND_AFTER_MS = 300_000;

/** What a VM's document has of a request's policy: nothing if it runs. */
export function planIdle(request: IdleRequest | undefined): { idle?: IdlePolicy } {
  if (request === undefined || request.policy === "never") return {};
  const { policy, pauseAfterMs = PAUSE_AFTER_MS } = request;
  const { refreshAfterMs = REFRESH_AFTER_MS, suspendAfterMs = SUSPEND_AFTER_MS } = request;
  return { idle: { policy, pauseAfterMs, refreshAfterMs, suspendAfterMs } };
}
