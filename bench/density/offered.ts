/** What VMs of each kind are asked for with, and whether that can be had here. */
import type { CreateVmRequest } from "../../src/contract/api.ts";
import { mergingMissing } from "./merging.ts";
import type { VmKind } from "./options.ts";

const NEVER = { policy: "never" } as const;

/** All of them with nothing prepared. */
export const REQUESTS: Readonly<Record<VmKind, CreateVmRequest>> = {
  mayfly: { idle: NEVER },
  // Memory that the guest does not use goes back before memory and CPU time are read.
  "mayfly-paused": { idle: { policy: "pause", refreshAfterMs: 2000 } },
  "mayfly-merge": { idle: NEVER, merge: true },
  "mayfly-suspended": { idle: NEVER },
};

/** Why a kind cannot be measured; undefined: it can. */
export function missingFor(kind: VmKind): string | undefined {
  return kind === "mayfly-merge" ? mergingMissing() : undefined;
}
