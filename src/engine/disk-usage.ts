/** What the state directory takes on disk, and removing what nobody needs. */
import type { DiskUsage, PruneResult } from "../contract/api.ts";
import { allocatedBytesBelow } from "../sys/allocated.ts";
import type { EngineParts } from "./engine.ts";

type Parts = Pick<EngineParts, "host" | "templates" | "images" | "vms" | "volumes" | "snapshots">;

/** Bytes as allocated on disk: holes do not count. */
export async function diskUsage({ host, templates, images, vms, volumes, snapshots }: Parts): Promise<DiskUsage> {
  const { stateDir } = host.config;
  const ended = vms.list().filter((vm) => vm.finishedAt !== null);
  const endedBytes = await sum(ended.map((vm) => allocatedBytesBelow(vms.directory(vm.id))));
  const stale = templates.stale();
  return {
    templates: {
      count: templates.list().length,
      bytes: await allocatedBytesBelow(`${stateDir}/templates`),
      reclaimableBytes: stale.reduce((bytes, template) => bytes + template.memory.allocatedBytes, 0),
    },
    images: {
      count: images.list().length,
      bytes: await allocatedBytesBelow(`${stateDir}/images`),
      reclaimableBytes: await images.reclaimableBytes(),
    },
    vms: {
      count: vms.list().length,
      bytes: await allocatedBytesBelow(`${stateDir}/vms`),
      reclaimableBytes: endedBytes,
    },
    snapshots: {
      count: snapshots.list().length,
      bytes: await allocatedBytesBelow(`${stateDir}/snapshots`),
      reclaimableBytes: 0,
    },
    ...(await volumes.usage()),
  };
}

/**
 * Removes ended VMs, templates that do not fit this host, and snapshots of directories that no VM has, images whose
 * name has moved on, and the cache of builds. Images with names stay: users gave them; and volumes: there is data in them.
 */
export async function pruneAll(parts: Parts): Promise<PruneResult> {
  const { host, images, templates, vms, volumes } = parts;
  const before = await allocatedBytesBelow(host.config.stateDir);
  const ended = vms.list().filter((vm) => vm.finishedAt !== null);
  for (const vm of ended) await vms.remove(vm.id, false);
  const removed = [
    ...ended.map((vm) => vm.id),
    ...(await templates.prune()),
    ...(await volumes.pruneMade()),
    ...(await images.prune(false)),
  ];
  const after = await allocatedBytesBelow(host.config.stateDir);
  return { removed, freedBytes: Math.max(0, before - after) };
}

/** Removes images as `Images.prune` has it. */
export async function pruneImages(
  { host, images }: Pick<Parts, "host" | "images">,
  all: boolean,
): Promise<PruneResult> {
  const directory = `${host.config.stateDir}/images`;
  const before = await allocatedBytesBelow(directory);
  const removed = await images.prune(all);
  return { removed, freedBytes: Math.max(0, before - (await allocatedBytesBelow(directory))) };
}

async function sum(numbers: readonly Promise<number>[]): Promise<number> {
  return (await Promise.all(numbers)).reduce((total, number) => total + number, 0);
}
