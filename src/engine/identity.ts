/** The clone contract: what a clone gets of its own before anything of its workload runs. */
import type { AgentClient } from "../agent/client.ts";
import type { IdentitySpec } from "../agent/requests.ts";
import { type Deadline, realtimeNs } from "../sys/deadline.ts";
import { randomBytes } from "../sys/ids.ts";

/** The identity of one VM. */
export interface Identity {
  hostname: string;
  machineId: Uint8Array;
}

/** A root file system to mount before the workload thaws. */
export interface RootSpec {
  fstype: "erofs" | "ext4";
  /** Size of the tmpfs over it, 0 for half of the memory. */
  upperBytes: number;
}

/** Limits inside the guest; 0: none. */
export interface GuestLimits {
  memoryBytes: number;
  cpuMillis: number;
}

/** A fresh identity with the given host name. */
export function newIdentity(hostname: string): Identity {
  return { hostname, machineId: randomBytes(16) };
}

/** What IDENTITY sends: fresh entropy and the time of this moment. */
export function identityRequest(identity: Identity): IdentitySpec {
  return {
    realtimeNs: realtimeNs(),
    entropy: randomBytes(64),
    machineId: identity.machineId,
    hostname: identity.hostname,
  };
}

/**
 * Applies the contract: identity, limits, root, thaw, sent in one write; the agent carries them out in this order and refuses
 * the later ones when the identity failed. Resolves when the workload may run.
 * @throws what the first failing request throws.
 */
export async function applyIdentity(
  agent: AgentClient,
  parts: { identity: Identity; root: RootSpec | undefined; limits: GuestLimits | undefined },
  deadline: Deadline,
): Promise<void> {
  const requests = [agent.identity(identityRequest(parts.identity), deadline)];
  if (parts.limits !== undefined) requests.push(agent.limits(parts.limits, deadline));
  if (parts.root !== undefined) requests.push(agent.root(parts.root.fstype, parts.root.upperBytes, deadline));
  requests.push(agent.thaw(deadline));
  await allInOrder(requests);
}

/** Waits for all; the first one in order that failed is the cause. */
async function allInOrder(requests: readonly Promise<void>[]): Promise<void> {
  const results = await Promise.allSettled(requests);
  const failed = results.find((result) => result.status === "rejected");
  if (failed !== undefined) throw failed.reason;
}
