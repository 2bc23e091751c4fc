/** Disks of a QEMU that runs or is paused: its slots are put on files, and back on placeholders, by QMP. */
import { MayflyError } from "../contract/errors.ts";
import {
  type BlockNode,
  DISK_SLOTS,
  type DiskFiles,
  type DiskSlot,
  type DiskSpec,
  diskNodes,
  placeholderNode,
  slotNode,
} from "../machine/devices/disk.ts";
import type { QmpClient } from "../qmp/client.ts";
import type { Deadline } from "../sys/deadline.ts";
import { grantFile } from "../sys/disk-files.ts";
import type { Slot } from "./slots.ts";

type Command = [name: string, args: Record<string, unknown>];

/**
 * Puts slots of a QEMU that was started with placeholders on files, whether it runs, is paused, or waits for its state. The files have to be
 * granted to QEMU's user before ({@link grantDisks}). The guest goes on seeing disks of the placeholders' size: file systems know their own, and grow
 * to what they are told when they are mounted. (QMP's `block_resize` tells a guest that runs; one that loads its state later hears nothing of it.)
 *
 * All commands are sent before this returns, since each wait for an answer is a round trip; QEMU carries them out in order, and before
 * whatever is sent after them.
 * @throws `qmp_command_failed` for the first that fails, naming file and slot; the slots are in no defined state then.
 */
export async function attachDisks(qmp: QmpClient, disks: DiskFiles, deadline: Deadline): Promise<void> {
  await Promise.all(inUse(disks).map(([slot, disk]) => attachDisk(qmp, slot, disk, deadline)));
}

/**
 * Puts slots back on their placeholders and closes the files. Only for disks that came by {@link attachDisks}, and that the guest has
 * unmounted: what it still writes is lost.
 */
export async function detachDisks(qmp: QmpClient, disks: DiskFiles, deadline: Deadline): Promise<void> {
  await Promise.all(inUse(disks).map(([slot, disk]) => detachDisk(qmp, slot, disk, deadline)));
}

/**
 * Gives the files that a QEMU has alone to its user, whom nobody else is. Before QEMU opens them, and again for one that is adopted. When the
 * slot is given back, once its QEMU has ended, they are root's alone again.
 * @throws what the file system says.
 */
export function grantDisks(slot: Slot, disks: DiskFiles): void {
  const grant = (path: string, mode: 0o600 | 0o400) => {
    slot.files.add(path);
    grantFile(path, slot.uid, mode);
  };
  for (const [, disk] of inUse(disks)) {
    if (disk.readOnly) continue;
    grant(disk.path, 0o600);
    if (disk.ownsBase === true && disk.basePath !== undefined) grant(disk.basePath, 0o400);
  }
}

function inUse(disks: DiskFiles): [DiskSlot, DiskSpec][] {
  return DISK_SLOTS.flatMap((slot): [DiskSlot, DiskSpec][] => {
    const disk = disks[slot];
    return disk === undefined ? [] : [[slot, disk]];
  });
}

async function attachDisk(qmp: QmpClient, slot: DiskSlot, disk: DiskSpec, deadline: Deadline): Promise<void> {
  const nodes = diskNodes(slot, disk);
  const commands = [...nodes.map((node): Command => ["blockdev-add", node]), reopen(slot, nodes.at(-1) ?? nodes[0])];
  await executeAll(qmp, commands, `attach ${disk.path} to the VM's disk ${slot}`, deadline);
}

async function detachDisk(qmp: QmpClient, slot: DiskSlot, disk: DiskSpec, deadline: Deadline): Promise<void> {
  const placeholder = placeholderNode(slot);
  const removed = diskNodes(slot, disk).toReversed();
  const commands = [
    reopen(slot, placeholder),
    ...removed.map((node): Command => ["blockdev-del", { "node-name": node["node-name"] }]),
  ];
  await executeAll(qmp, commands, `detach ${disk.path} from the VM's disk ${slot}`, deadline);
}

function reopen(slot: DiskSlot, below: BlockNode): Command {
  return ["blockdev-reopen", { options: [slotNode(slot, below)] }];
}

/** Sends all commands and waits for all; what the first one that failed says is the cause. */
async function executeAll(
  qmp: QmpClient,
  commands: readonly Command[],
  what: string,
  deadline: Deadline,
): Promise<void> {
  const results = await Promise.allSettled(commands.map(([name, args]) => qmp.execute(name, args, deadline)));
  const failed = results.find((result) => result.status === "rejected");
  if (failed === undefined) return;
  const cause: unknown = failed.reason;
  if (!(cause instanceof MayflyError)) throw cause;
  throw new MayflyError(cause.code, `Cannot ${what}: ${cause.message}`, { details: cause.details, cause });
}
