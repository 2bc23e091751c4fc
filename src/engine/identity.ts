/** The clone contract: what a clone gets of its own before anything of its workload runs. */
import type { AgentClient } from "../agent/client.ts";
import type { ContainerSpec, IdentitySpec } from "../agent/requests.ts";
import { type Deadline, realtimeNs } from "../sys/deadline.ts";
import { randomBytes } from "../sys/ids.ts";
import { type HookPlan, runHooks } from "./hooks.ts";
import { fillVolumes, type VolumeFill } from "./volume-fill.ts";

/** The identity of one VM. */
export interface Identity {
  hostname: string;
  machineId: Uint8Array;
}

/** A small file that is in the guest before anything of its workload runs. */
export interface GuestFile {
  path: string;
  bytes: Uint8Array;
  mode: number;
  uid: number;
  gid: number;
}

/** Limits inside the guest; 0: none. */
export interface GuestLimits {
  memoryBytes: number;
  cpuMillis: number;
  pids: number;
}

/** What makes a clone a VM of its own. */
export interface GuestSetup {
  identity: Identity;
  /** Root file system, mounts and namespaces to build; absent in the base guest, and where the template has them. */
  container: ContainerSpec | undefined;
  limits: GuestLimits | undefined;
  files: readonly GuestFile[];
  /** Volumes that get their first content from the image. */
  fills: readonly VolumeFill[];
  /** What runs before the workload thaws. */
  hooks: HookPlan | undefined;
  /** The workload does not thaw. */
  staysFrozen?: boolean;
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
 * Applies the contract: identity, limits, container, files, thaw, sent in one write; the agent carries them out in this order and
 * refuses the later ones when the identity failed. Only volumes to fill and hooks are waited for. Resolves when the workload may run.
 * @throws what the first failing request throws.
 */
export async function applyIdentity(agent: AgentClient, setup: GuestSetup, deadline: Deadline): Promise<void> {
  const requests = [agent.identity(identityRequest(setup.identity), deadline)];
  if (setup.limits !== undefined) requests.push(agent.limits(setup.limits, deadline));
  if (setup.container !== undefined) {
    if (setup.fills.length > 0) {
      await allInOrder(requests.splice(0));
      await fillVolumes(agent, setup.container.fstype, setup.fills, deadline);
    }
    requests.push(agent.container(setup.container, deadline));
  }
  for (const file of setup.files) requests.push(placeFile(agent, file, deadline));
  if (setup.hooks !== undefined) {
    await allInOrder(requests.splice(0));
    await runHooks(agent, setup.hooks, deadline);
  }
  if (setup.staysFrozen !== true) requests.push(agent.thaw(deadline));
  await allInOrder(requests);
}

/** Sends a whole file at once; for files below the stream's window. */
async function placeFile(agent: AgentClient, file: GuestFile, deadline: Deadline): Promise<void> {
  const { path, bytes, ...owner } = file;
  const writer = agent.writeFile(path, { ...owner, parents: true }, deadline);
  writer.opened.catch(() => undefined);
  const written = writer.write(bytes);
  written.catch(() => undefined);
  await Promise.all([written, writer.end()]);
}

/** Waits for all; the first one in order that failed is the cause. */
async function allInOrder(requests: readonly Promise<void>[]): Promise<void> {
  const results = await Promise.allSettled(requests);
  const failed = results.find((result) => result.status === "rejected");
  if (failed !== undefined) throw failed.reason;
}
