/**
 * Process images of suspended VMs: a VM under emulation goes on as the QEMU that it was, with what that has translated, instead of having its state loaded into
 * another one (docs/adr/0046-resume-from-a-process-image.md).
 */
import type { DiskFiles } from "../machine/devices/disk.ts";
import { findSuspendedImage, makeSuspendedImage } from "../snapshot/process-image.ts";
import type { SnapshotStore } from "../snapshot/store.ts";
import type { Deadline } from "../sys/deadline.ts";
import { imageOfMemory } from "../template/process-image.ts";
import type { LoadedTemplate } from "../template/store.ts";
import { spawnFromImage } from "./clone.ts";
import type { ForkCopies } from "./fork-source.ts";
import type { Host } from "./host.ts";
import { hasProcessImages, imagesFit } from "./process-images.ts";
import type { QemuProcess } from "./qemu-process.ts";
import type { VmRecord } from "./records.ts";
import type { RunningVm } from "./running-vm.ts";

/** A QEMU that becomes the one of a suspended VM, and the file that its guest's memory is mapped from. */
export interface SuspendedQemu {
  qemu: QemuProcess;
  memoryPath: string;
}

/** The images of all suspended VMs, which lie with their snapshots. */
export class SuspendedImages {
  constructor(
    private readonly host: Host,
    private readonly copies: ForkCopies,
    private readonly store: Pick<SnapshotStore, "directory">,
  ) {}

  /**
   * Makes the image of a VM that stands still to be suspended, unless it has what no image has. Where it fails, there is none: the snapshot has all that is
   * needed.
   */
  async make(running: RunningVm, record: VmRecord, snapshotId: string, deadline: Deadline): Promise<void> {
    if (!hasProcessImages(this.host) || !this.copies.canCopy(record)) return;
    const { qemu, template } = running.clone;
    const { memoryPath } = template;
    const about = { ...imagesFit(this.host), memoryPath, basePath: imageOfMemory(memoryPath) ?? null };
    const fill = (image: number) => this.copies.writeImage(qemu, image, deadline);
    await makeSuspendedImage(this.store.directory(snapshotId), about, fill).catch(() => undefined);
  }

  /**
   * Spawns a QEMU that goes on from a snapshot's image. @returns undefined: there is none that fits.
   * @param merge whether its memory may be merged with that of others.
   * @throws `limit_reached`, `qemu_spawn_failed`; nothing is left then.
   */
  async spawn(
    snapshotId: string,
    template: LoadedTemplate,
    disks: DiskFiles,
    merge: boolean,
  ): Promise<SuspendedQemu | undefined> {
    if (!hasProcessImages(this.host)) return undefined;
    const image = await findSuspendedImage(this.store.directory(snapshotId), imagesFit(this.host));
    if (image === undefined) return undefined;
    const qemu = spawnFromImage(this.host, template, image, disks, merge);
    return { qemu, memoryPath: image.memoryPath };
  }
}
