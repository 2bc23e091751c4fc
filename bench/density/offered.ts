/** What VMs of each kind are asked for with, and whether that can be had here. */
import type { CreateVmRequest, SystemInfo } from "../../src/contract/api.ts";
import { mergingMissing } from "./merging.ts";
import type { VmKind } from "./options.ts";

const NEVER = { policy: "never" } as const;

/** All of them with nothing prepared, but copies with their parent. */
export const REQUESTS: Readonly<Record<VmKind, CreateVmRequest>> = {
  mayfly: { idle: NEVER },
  "mayfly-copies": { idle: NEVER, pool: true },
  // Memory that the guest does not use goes back before memory and CPU time are read.
  "mayfly-paused": { idle: { policy: "pause", refreshAfterMs: 2000 } },
  "mayfly-merge": { idle: NEVER, merge: true },
  "mayfly-suspended": { idle: NEVER },
};

/** Why a kind cannot be measured; undefined: it can. */
export function missingFor(kind: VmKind, accelerator: SystemInfo["accelerator"]): string | undefined {
  if (kind === "mayfly-copies" && accelerator === "kvm") return "with KVM no QEMU can be copied";
  return kind === "mayfly-merge" ? mergingMissing() : undefined;
}
