/** Options that say what becomes of a VM while nothing is under way. */
import { IDLE_POLICIES, type IdleRequest } from "../contract/idle.ts";
import { usageError } from "./arguments.ts";
import { parseDurationMs } from "./sizes.ts";
import type { OptionSpecs, OptionValues } from "./specification.ts";

/** The options. */
export const IDLE_OPTIONS = {
  idle: {
    kind: "value",
    value: "POLICY",
    complete: [...IDLE_POLICIES],
    summary: "While nothing is under way: never, pause (no CPU) or suspend (later no memory either) (never)",
  },
  "pause-after": { kind: "value", value: "DURATION", summary: "How long it is idle before it is paused (500ms)" },
  "refresh-after": { kind: "value", value: "DURATION", summary: "Before unused memory goes back to the host (10s)" },
  "suspend-after": { kind: "value", value: "DURATION", summary: "Before it is suspended, with --idle suspend (5m)" },
} as const satisfies OptionSpecs;

/** What the options ask for; undefined: nothing. @throws MayflyError `invalid_argument`. */
export function idleRequest(options: OptionValues<typeof IDLE_OPTIONS>): IdleRequest | undefined {
  const times = (["pause-after", "refresh-after", "suspend-after"] as const).filter(
    (name) => options[name] !== undefined,
  );
  const { idle } = options;
  const policy = IDLE_POLICIES.find((known) => known === idle);
  if (idle !== undefined && policy === undefined) {
    throw usageError("mayfly run", `--idle is ${JSON.stringify(idle)}; it takes ${IDLE_POLICIES.join(", ")}`);
  }
  const [first] = times;
  if (policy === undefined || policy === "never") {
    if (first !== undefined) throw usageError("mayfly run", `--${first} needs --idle pause or --idle suspend`);
    return policy === undefined ? undefined : { policy };
  }
  const ms = (name: (typeof times)[number]) =>
    options[name] === undefined ? undefined : parseDurationMs(`--${name}`, options[name]);
  const given = {
    pauseAfterMs: ms("pause-after"),
    refreshAfterMs: ms("refresh-after"),
    suspendAfterMs: ms("suspend-after"),
  };
  if (policy === "pause" && given.suspendAfterMs !== undefined) {
    throw usageError("mayfly run", "--suspend-after needs --idle suspend");
  }
  const { pauseAfterMs, refreshAfterMs, suspendAfterMs } = given;
  return {
    policy,
    ...(pauseAfterMs === undefined ? {} : { pauseAfterMs }),
    ...(refreshAfterMs === undefined ? {} : { refreshAfterMs }),
    ...(suspendAfterMs === undefined ? {} : { suspendAfterMs }),
  };
}
