/** From a request for a VM to a running one: shape, template, identity, the best that the pool has, first command. */

import type { ContainerSpec } from "../agent/requests.ts";
import type { ClonePath, CreateVmRequest } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import type { Shape } from "../contract/machine.ts";
import type { DiskFiles } from "../machine/devices/disk.ts";
import { shapeFor } from "../machine/shape.ts";
import type { Deadline } from "../sys/deadline.ts";
import { hostMemoryBytes } from "../sys/host.ts";
import type { LoadedTemplate } from "../template/store.ts";
import { type Clone, type CloneRequest, cloneFromTemplate, cloneFromWarm, type WarmClone } from "./clone.ts";
import { DEFAULT_MEMORY_BYTES } from "./config.ts";
import type { Gate } from "./gate.ts";
import type { HookPlan } from "./hooks.ts";
import type { Host } from "./host.ts";
import { type GuestFile, newIdentity } from "./identity.ts";
import type { Pool, Prepared } from "./pool.ts";
import { isRefusedImage, type ProcessImages } from "./process-images.ts";
import type { WarmRoot } from "./rehearsal.ts";
import { StageClock } from "./stages.ts";
import type { VolumeFill } from "./volume-fill.ts";

/** What a VM gets, in numbers. */
export interface Sizes {
  shape: Shape;
  memoryBytes: number;
  cpus: number;
  /** Whether the guest limits its workload below the shape. */
  limited: boolean;
}

/** The sizes of a request. @throws `memory_too_small`, `memory_exceeds_host`, `invalid_argument`. */
export function sizesOf(request: Pick<CreateVmRequest, "memoryBytes" | "cpus">): Sizes {
  const memoryBytes = request.memoryBytes ?? DEFAULT_MEMORY_BYTES;
  const cpus = request.cpus ?? 1;
  const shape = shapeFor({ memoryBytes, cpus }, hostMemoryBytes());
  const limited = memoryBytes < shape.memoryMiB * 2 ** 20 || cpus < shape.vcpus;
  return { shape, memoryBytes, cpus, limited };
}

/** A clone that is ready, and how it came to be. */
export interface Started {
  clone: Clone;
  path: ClonePath;
  clock: StageClock;
  /** Its machine id, 32 hexadecimal digits. */
  machineId: string;
}

/** What a VM is started with, beside its template. */
export interface StartParts {
  hostname: string;
  sizes: Sizes;
  disks: DiskFiles;
  container: ContainerSpec | undefined;
  /** Most processes of its workload; 0: no limit. */
  pids: number;
  files: readonly GuestFile[];
  fills: readonly VolumeFill[];
  hooks: HookPlan | undefined;
  /** Its memory may be merged with that of others: it takes none that runs already, of which none may. */
  merge?: boolean;
}

/** What {@link startClone} works with. */
export interface StartContext {
  host: Host;
  gate: Gate;
  pool: Pool | undefined;
  images: Pick<ProcessImages, "spawn">;
}

/**
 * Makes a clone ready by the fastest way there is: a warm one, a copy of a parent, a process image, a QEMU blocked on its socket, or nothing prepared.
 * A prepared one that turns out dead is replaced by a fresh one once.
 */
export async function startClone(
  context: StartContext,
  template: LoadedTemplate,
  parts: StartParts,
  deadline: Deadline,
  startedMs: number,
): Promise<Started> {
  const { sizes, pids } = parts;
  const cpuMillis = Math.round(sizes.cpus * 1000);
  const request: CloneRequest = {
    identity: newIdentity(parts.hostname),
    disks: parts.disks,
    container: parts.container,
    limits: sizes.limited || pids > 0 ? { ...limitedSizes(sizes, cpuMillis), pids } : undefined,
    files: parts.files,
    fills: parts.fills,
    hooks: parts.hooks,
    merge: parts.merge === true,
  };
  const machineId = hexOf(request.identity.machineId);
  const pool = parts.merge === true ? undefined : context.pool;
  const prepared = await preparedBy(pool, imageRoot(parts), deadline);
  if (prepared !== undefined) {
    const clock = new StageClock(startedMs);
    try {
      const clone =
        prepared.kind === "warm"
          ? await cloneFromWarm(prepared.clone, onRootOf(prepared.clone, request), clock, deadline)
          : await cloneFromTemplate(context.host, template, request, prepared.qemu, clock, deadline);
      return { clone: limitHost(clone, sizes), path: prepared.path, clock, machineId };
    } catch (error) {
      if (!isDeadOnArrival(error)) throw error;
    }
  }
  using _place = await context.gate.enter();
  const { clone, path, clock } = await cloneFromNothing(context, template, request, deadline, startedMs);
  return { clone: limitHost(clone, sizes), path, clock, machineId };
}

/** Makes a clone ready for which nothing is prepared: from its template's process image, or from the template. */
async function cloneFromNothing(
  { host, images }: StartContext,
  template: LoadedTemplate,
  request: CloneRequest,
  deadline: Deadline,
  startedMs: number,
): Promise<Pick<Started, "clone" | "path" | "clock">> {
  const clock = new StageClock(startedMs);
  try {
    clock.end("plan");
    const fromImage = images.spawn(template, request.merge);
    if (fromImage !== undefined) {
      clock.end("spawn");
      return { clone: await cloneFromWarm(fromImage, request, clock, deadline), path: "image", clock };
    }
  } catch (error) {
    if (!isRefusedImage(error)) throw error;
  }
  const again = new StageClock(startedMs);
  const clone = await cloneFromTemplate(host, template, request, undefined, again, deadline);
  return { clone, path: "cold", clock: again };
}

/** The best of a pool: a warm one, a copy of its parent, one that stands or waits for its state. */
async function preparedBy(
  pool: Pool | undefined,
  root: WarmRoot | undefined,
  deadline: Deadline,
): Promise<Prepared | undefined> {
  return pool?.takeWarm(root) ?? (await pool?.copy(deadline)) ?? pool?.takePrepared();
}

/** A machine id as records and files have it. */
export function hexOf(machineId: Uint8Array): string {
  return Buffer.from(machineId).toString("hex");
}

/** Limits below the shape; 0 where the shape is the limit. */
function limitedSizes(sizes: Sizes, cpuMillis: number): { memoryBytes: number; cpuMillis: number } {
  return {
    memoryBytes: sizes.memoryBytes < sizes.shape.memoryMiB * 2 ** 20 ? sizes.memoryBytes : 0,
    cpuMillis: sizes.cpus < sizes.shape.vcpus ? cpuMillis : 0,
  };
}

/** The root that clones can be warmed for: an image's. */
function imageRoot({ disks, container }: StartParts): WarmRoot | undefined {
  if (disks.root === undefined || container?.fstype !== "erofs") return undefined;
  return { path: disks.root.path, fstype: container.fstype };
}

/** What a guest that was warmed with this very root need not read again. */
function onRootOf(warm: WarmClone, request: CloneRequest): CloneRequest {
  if (request.container === undefined || warm.root === undefined) return request;
  return { ...request, container: { ...request.container, sameRoot: true } };
}

/** A QEMU that died while it waited says nothing about the next one. */
function isDeadOnArrival(error: unknown): boolean {
  return error instanceof MayflyError && error.kind === "unavailable";
}

/** A share of the CPU is limited once the clone is ready, so that it does not slow its start; memory and pids are since it was spawned. */
export function limitHost(clone: Clone, sizes: Sizes): Clone {
  if (sizes.cpus < sizes.shape.vcpus) clone.qemu.slot.cgroup.limit({ cpuMillis: Math.round(sizes.cpus * 1000) });
  return clone;
}
