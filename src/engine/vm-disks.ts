/** What a VM's mounts need on the host: volumes claimed, directories packed, a scratch disk made; and all of it given back. */
import { join } from "node:path";
import type { ContainerSpec } from "../agent/requests.ts";
import type { CreateVmRequest, VolumeMount } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import type { DiskFiles, DiskSlot, WritableDisk } from "../machine/devices/disk.ts";
import { diskSizeBytes, newSparseFile } from "../sys/disk-files.ts";
import { makeDirectory, namesIn, removePath } from "../sys/paths.ts";
import type { DirectoryStore } from "../volume/directories.ts";
import type { Holder } from "../volume/holds.ts";
import { makeOverlay } from "../volume/overlay.ts";
import type { ScratchStore } from "../volume/scratch.ts";
import type { VolumeStore } from "../volume/store.ts";
import type { Holding, OwnDisks, Release } from "./holdings.ts";
import type { VolumeFill } from "./volume-fill.ts";

/** Slots of mounted volumes and directories, in the order of the request's `volumes`. */
const VOLUME_SLOTS = ["volume0", "volume1", "volume2"] as const satisfies readonly DiskSlot[];
const GUEST_DEVICES = ["/dev/vdc", "/dev/vdd", "/dev/vde"] as const;

/** Where disks come from. */
export interface DiskStores {
  volumes: VolumeStore;
  directories: DirectoryStore;
  scratch: ScratchStore;
}

/** The VM that disks are for. */
export interface DiskOwner extends Holder {
  /** Whether it goes when it ends, and with it the volumes that it did not name. */
  autoRemove: boolean;
}

/** Disks of a VM beside its root. */
export interface VmDisks {
  disks: Omit<DiskFiles, "root">;
  /** Names of its volumes. */
  volumes: string[];
  /** Volumes that nobody has had before: to be filled before the container is built. */
  fills: VolumeFill[];
  /** Sizes in bytes to which file systems are to grow, by the place of their mount in the request. */
  grows: Map<number, number>;
  holding: Holding;
}

/** Makes disks for VMs under one state directory. */
export class VmDiskMaker {
  readonly #root: string;

  constructor(
    stateDir: string,
    private readonly stores: DiskStores,
  ) {
    this.#root = join(stateDir, "vms");
  }

  /**
   * Gets a VM's disks ready. Named volumes that are not there are made. A clean volume and a scratch disk cost no process; a directory costs one
   * that looks through it.
   * @throws `resource_in_use` naming the VM that has a volume; `limit_reached`, `invalid_argument`, `file_not_found`, `disk_full`, `store_corrupt`,
   * `cancelled`. Nothing is held then.
   */
  async prepare(
    vm: DiskOwner,
    request: Pick<CreateVmRequest, "volumes" | "diskBytes">,
    signal?: AbortSignal,
  ): Promise<VmDisks> {
    const { volumes = [], diskBytes } = request;
    const prepared: VmDisks = { disks: {}, volumes: [], fills: [], grows: new Map(), holding: noHolding };
    if (volumes.length === 0 && diskBytes === undefined) return prepared;
    const held = new HeldDisks(vm, this.#directory(vm.id), this.stores);
    try {
      await makeDirectory(this.#root, 0o711);
      await makeDirectory(join(this.#root, vm.id), 0o711);
      await makeDirectory(this.#directory(vm.id), 0o711);
      // Claims first, and all of them: nothing is made for a VM that cannot start.
      for (const mount of volumes) await this.#claim(held, mount, signal);
      if (diskBytes !== undefined) prepared.disks.scratch = await this.#scratch(held, diskBytes);
      for (const [index, mount] of volumes.entries()) await this.#mount(prepared, held, index, mount, signal);
    } catch (error) {
      await held.release("never_started");
      throw error;
    }
    prepared.volumes = [...held.volumes];
    prepared.holding = held;
    return prepared;
  }

  /**
   * Places for the disks of a copy of a VM: of a scratch disk an empty file, whose content is the caller's (an overlay over a base of this host, or
   * the whole disk of one that came from another), and of directories new overlays. A
   * copy has no volumes.
   * @throws `disk_full`; nothing is held then.
   */
  async copy(vm: DiskOwner, disks: DiskFiles): Promise<OwnDisks> {
    const { root: _root, ...others } = disks;
    const own: OwnDisks = { disks: {}, volumes: [], holding: noHolding };
    if (Object.keys(others).length === 0) return own;
    const held = new HeldDisks(vm, this.#directory(vm.id), this.stores);
    try {
      await makeDirectory(this.#root, 0o711);
      await makeDirectory(join(this.#root, vm.id), 0o711);
      await makeDirectory(held.directory, 0o711);
      for (const [slot, disk] of Object.entries(others) as [Exclude<DiskSlot, "root">, WritableDisk][]) {
        const directory = this.stores.directories.keyOf(disk.basePath ?? disk.path);
        if (slot === "scratch") {
          const path = join(held.directory, `scratch.${disk.format}`);
          newSparseFile(path, 0, []);
          if (disk.basePath !== undefined) held.holdScratch(disk.basePath);
          own.disks.scratch = { ...disk, path };
        } else if (directory !== undefined && disk.basePath !== undefined) {
          held.holdDirectory(directory);
          own.disks[slot] = overlaid(held, slot, disk.basePath);
        }
      }
    } catch (error) {
      await held.release("never_started");
      throw error;
    }
    return { ...own, holding: held };
  }

  /** What a VM of an earlier daemon holds, from the disks in its record: claimed again. Also for one that has ended, to give it back. */
  adopt(vm: DiskOwner, disks: DiskFiles): Holding {
    const held = new HeldDisks(vm, this.#directory(vm.id), this.stores);
    const { volumes, directories, scratch } = this.stores;
    for (const { path, basePath } of Object.values({ ...disks, root: undefined }).filter(
      (disk) => disk !== undefined,
    )) {
      const volume = volumes.nameOf(basePath ?? path);
      const directory = directories.keyOf(basePath ?? path);
      // A record that lays claim to another VM's volume is wrong, and must not keep the daemon from starting.
      if (volume !== undefined && volumes.isFree(volume)) {
        volumes.claim(volume, vm);
        held.volumes.add(volume);
      }
      if (directory !== undefined) held.holdDirectory(directory);
      if (basePath !== undefined && scratch.has(basePath)) held.holdScratch(basePath);
    }
    return held;
  }

  /**
   * After a daemon's start, once every VM that runs has been adopted: files of those that do not go, or back to root. Of a VM that nothing is known of, since
   * its start was cut short, all goes.
   */
  async sweep(isRunning: (vmId: string) => boolean, isKnown: (vmId: string) => boolean): Promise<void> {
    this.stores.volumes.takeBack();
    for (const id of await namesIn(this.#root)) {
      if (!isKnown(id)) await removePath(join(this.#root, id));
      else if (!isRunning(id)) await removePath(this.#directory(id));
    }
  }

  #directory(vmId: string): string {
    return join(this.#root, vmId, "disks");
  }

  async #claim(held: HeldDisks, { source, anonymous }: VolumeMount, signal: AbortSignal | undefined): Promise<void> {
    if (!("volume" in source)) return;
    const { volume } = source;
    if (held.volumes.has(volume)) {
      throw new MayflyError("invalid_argument", `Cannot mount volume ${volume} twice in one VM`);
    }
    const isMade = anonymous === true && !this.stores.volumes.has(volume);
    await this.stores.volumes.ensure(volume, anonymous === true);
    await this.stores.volumes.settled(volume, signal);
    this.stores.volumes.claim(volume, held.vm);
    held.volumes.add(volume);
    if (isMade) held.made.add(volume);
  }

  async #scratch(held: HeldDisks, diskBytes: number): Promise<WritableDisk> {
    const disk = await this.stores.scratch.make(join(held.directory, "scratch.qcow2"), diskBytes, held.vm);
    held.holdScratch(disk.basePath);
    return { ...disk, format: "qcow2", readOnly: false };
  }

  async #mount(
    prepared: VmDisks,
    held: HeldDisks,
    index: number,
    mount: VolumeMount,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const slot = VOLUME_SLOTS[index];
    if (slot === undefined) {
      throw new MayflyError(
        "limit_reached",
        `Cannot mount more than ${VOLUME_SLOTS.length} volumes and directories in one VM: it has no more slots for disks`,
      );
    }
    const { source, target } = mount;
    if ("directory" in source) {
      const { key, path } = await this.stores.directories.snapshot(source.directory, held.vm, signal);
      held.holdDirectory(key);
      prepared.disks[slot] = overlaid(held, slot, path);
      return;
    }
    const { name, path, isNew, growsToBytes } = await this.stores.volumes.ready(source.volume);
    if (mount.readOnly === true) {
      prepared.disks[slot] = { ...overlaid(held, slot, path), ownsBase: true };
      return;
    }
    prepared.disks[slot] = { path, format: "raw", readOnly: false };
    if (growsToBytes !== undefined) prepared.grows.set(index, growsToBytes);
    if (isNew) prepared.fills.push({ volume: name, device: GUEST_DEVICES[index] ?? "", target });
  }
}

/** A container whose volumes grow to the sizes of their disks. */
export function withSizes(
  container: ContainerSpec | undefined,
  grows: ReadonlyMap<number, number>,
): ContainerSpec | undefined {
  if (container === undefined || grows.size === 0) return container;
  const mounts = (container.mounts ?? []).map((mount) => {
    const sizeBytes = mount.kind === "disk" ? grows.get(mount.disk) : undefined;
    return sizeBytes === undefined ? mount : { ...mount, sizeBytes };
  });
  return { ...container, mounts };
}

/** A slot takes a disk that can be written: what must not change lies below an overlay of the VM's own, which takes what a guest writes. */
function overlaid(held: HeldDisks, slot: DiskSlot, basePath: string): WritableDisk {
  const path = join(held.directory, `${slot}.qcow2`);
  makeOverlay(path, diskSizeBytes(basePath, "raw"));
  return { path, basePath, format: "qcow2", readOnly: false };
}

const noHolding: Holding = { release: () => undefined, letGo: () => undefined };

/** What one VM has of the stores. */
class HeldDisks implements Holding {
  readonly volumes = new Set<string>();
  /** Those among them that nobody has named, made for this start of the VM. */
  readonly made = new Set<string>();
  readonly #directories = new Set<string>();
  readonly #scratch = new Set<string>();

  constructor(
    readonly vm: DiskOwner,
    readonly directory: string,
    private readonly stores: DiskStores,
  ) {}

  holdDirectory(key: string): void {
    this.stores.directories.hold(key, this.vm);
    this.#directories.add(key);
  }

  holdScratch(basePath: string): void {
    this.stores.scratch.hold(basePath, this.vm);
    this.#scratch.add(basePath);
  }

  /** Files that the file system does not let go stay until the next start, or until they are pruned: the VM ends all the same. */
  async release(how: Release): Promise<void> {
    const { volumes, directories, scratch } = this.stores;
    await removePath(this.directory).catch(() => undefined);
    for (const basePath of this.#scratch) scratch.release(basePath, this.vm.id);
    for (const key of this.#directories) await directories.release(key, this.vm.id).catch(() => undefined);
    for (const name of this.volumes) {
      volumes.release(name, this.vm.id);
      const isForNobody = how === "never_started" && this.made.has(name);
      const goes = (this.vm.autoRemove || isForNobody) && volumes.has(name) && volumes.get(name).anonymous;
      // One that somebody else has begun to use stays.
      if (goes) await volumes.remove(name, this.vm.id).catch(() => undefined);
    }
  }

  /** Nothing to do: what a VM holds is known again from its record. */
  letGo(): void {}
}
