/** The volumes of a state directory as the engine offers them, and the disks that VMs have of them. */
import type { CreateVolumeRequest, DiskUsage, PruneResult, Volume } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import { newId } from "../sys/ids.ts";
import { DirectoryStore } from "../volume/directories.ts";
import type { Holder } from "../volume/holds.ts";
import { ScratchStore } from "../volume/scratch.ts";
import { VolumeStore } from "../volume/store.ts";
import type { Events } from "./events.ts";
import { type Host, tenantGid } from "./host.ts";
import { MAX_SLOTS } from "./slots.ts";
import { VmDiskMaker } from "./vm-disks.ts";

/** Users that mend file systems are beyond those of VMs, and so many that none is used by two at once. */
const MENDING_UIDS = 1024;

/** Volumes, snapshots of directories and scratch disks. */
export class Volumes {
  readonly #volumes: VolumeStore;
  readonly #directories: DirectoryStore;
  readonly #scratch: ScratchStore;
  /** Disks for VMs. */
  readonly disks: VmDiskMaker;

  constructor(
    host: Host,
    private readonly events: Events,
  ) {
    const { stateDir, uidBase } = host.config;
    let mended = 0;
    const mendingUid = () => uidBase + MAX_SLOTS + 1 + (mended++ % MENDING_UIDS);
    this.#volumes = new VolumeStore(stateDir, mendingUid);
    this.#directories = new DirectoryStore(stateDir, tenantGid(host));
    this.#scratch = new ScratchStore(stateDir);
    this.disks = new VmDiskMaker(stateDir, {
      volumes: this.#volumes,
      directories: this.#directories,
      scratch: this.#scratch,
    });
  }

  /** VMs that run or could run again on a volume. */
  set usedBy(usedBy: (name: string) => readonly Holder[]) {
    this.#volumes.usedBy = usedBy;
  }

  /** The end of a VM that has begun to end. */
  set ending(ending: (vmId: string) => Promise<unknown> | undefined) {
    this.#volumes.ending = ending;
  }

  /** Reads what is there; what was interrupted goes. A damaged volume is left alone and told of. Before VMs are adopted. */
  async load(): Promise<void> {
    for (const { name, error } of await this.#volumes.load()) {
      this.events.emit("volume.damaged", name, name, { reason: error.message });
    }
    await this.#directories.load();
    await this.#scratch.load();
  }

  list = (): Volume[] => this.#volumes.list();
  get = (name: string): Volume => this.#volumes.get(name);

  async create(request: CreateVolumeRequest): Promise<Volume> {
    const name = request.name ?? newId("vol").slice("vol_".length);
    const { sizeBytes, labels } = request;
    const volume = await this.#volumes.create({
      name,
      ...(sizeBytes === undefined ? {} : { sizeBytes }),
      ...(labels === undefined ? {} : { labels }),
    });
    this.events.emit("volume.created", name, name, { sizeBytes: volume.sizeBytes });
    return volume;
  }

  async resize(name: string, sizeBytes: number): Promise<Volume> {
    await this.#volumes.settled(name);
    const volume = await this.#volumes.resize(name, sizeBytes);
    this.events.emit("volume.resized", name, name, { sizeBytes: volume.sizeBytes });
    return volume;
  }

  async remove(name: string): Promise<void> {
    await this.#volumes.settled(name);
    await this.#volumes.remove(name);
    this.events.emit("volume.removed", name, name);
  }

  /** Records that volumes have been in a VM. */
  async markUsed(names: readonly string[]): Promise<void> {
    for (const name of names) await this.#volumes.markUsed(name);
  }

  /** Removes volumes that no VM has: anonymous ones, or all. One that a VM gets meanwhile stays. */
  async prune(all: boolean): Promise<PruneResult> {
    const removed: string[] = [];
    let freedBytes = 0;
    for (const name of this.#volumes.unused(all)) {
      try {
        const { allocatedBytes } = this.#volumes.get(name);
        await this.remove(name);
        freedBytes += allocatedBytes;
        removed.push(name);
      } catch (error) {
        const isTaken = error instanceof MayflyError && ["resource_in_use", "volume_not_found"].includes(error.code);
        if (!isTaken) throw error;
      }
    }
    return { removed, freedBytes };
  }

  /** Removes what is made again when it is needed: snapshots of directories and file systems of scratch disks that no VM has. */
  async pruneMade(): Promise<string[]> {
    return [...(await this.#directories.prune()), ...(await this.#scratch.prune())];
  }

  /** What volumes, and snapshots and scratch disks, take on disk. */
  async usage(): Promise<Pick<DiskUsage, "volumes" | "directories">> {
    const volumes = this.#volumes.list();
    const unused = new Set(this.#volumes.unused(true));
    const bytes = (list: readonly Volume[]) => list.reduce((sum, { allocatedBytes }) => sum + allocatedBytes, 0);
    const [directories, scratch] = [await this.#directories.usage(), await this.#scratch.usage()];
    return {
      volumes: {
        count: volumes.length,
        bytes: bytes(volumes),
        reclaimableBytes: bytes(volumes.filter(({ name }) => unused.has(name))),
      },
      directories: {
        count: directories.count + scratch.count,
        bytes: directories.bytes + scratch.bytes,
        reclaimableBytes: directories.reclaimableBytes + scratch.reclaimableBytes,
      },
    };
  }
}
