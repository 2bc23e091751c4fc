/** Slots: each QEMU process has one, and with it a uid, a control group and a directory for its sockets. */
import { join } from "node:path";
import { MayflyError } from "../contract/errors.ts";
import { type Cgroup, CgroupTree } from "../sys/cgroup.ts";
import { revokeFile } from "../sys/disk-files.ts";
import { ensureDirectory, namesBelow, removeTree } from "../sys/store-files.ts";

/** Most QEMU processes of one daemon. */
export const MAX_SLOTS = 4096;

/** What one QEMU process has of the host. */
export interface Slot {
  number: number;
  uid: number;
  /** Slots whose uids own the user namespaces that its QEMU is in: those of the QEMU that it is a copy of, that this one is a copy of, and so on. */
  owners: readonly number[];
  directory: string;
  qmpPath: string;
  agentPath: string;
  logPath: string;
  cgroup: Cgroup;
  /** Disks that its QEMU may write: they belong to its uid, and go back to root with the slot. */
  files: Set<string>;
}

/**
 * Hands out slots, lowest number first, so that names and uids stay few. A slot whose uid owns user namespaces of others is nobody's as long as
 * these are there: who has that uid has all rights in them.
 */
export class Slots {
  readonly cgroups: CgroupTree;
  readonly #taken = new Set<number>();
  /** Those among them whose QEMU has ended, while namespaces that its uid owns are in use. */
  readonly #ended = new Set<number>();
  /** How many slots in use each one owns the namespaces of. */
  readonly #owned = new Map<number, number>();
  #lowest = 0;

  constructor(
    private readonly runDir: string,
    private readonly uidBase: number,
    groupName: string,
  ) {
    this.cgroups = CgroupTree.open(groupName);
  }

  /** Uids that slots have. */
  get uids(): { first: number; count: number } {
    return { first: this.uidBase + 1, count: MAX_SLOTS };
  }

  /** Takes a free slot and makes its directory and control group. @param origin slot of the QEMU that this one's is a copy of. @throws `limit_reached`. */
  take(origin?: Slot): Slot {
    while (this.#taken.has(this.#lowest)) this.#lowest += 1;
    if (this.#lowest >= MAX_SLOTS) {
      throw new MayflyError("limit_reached", `Cannot start another VM: ${MAX_SLOTS} QEMU processes are running`);
    }
    const owners = origin === undefined ? [] : [origin.number, ...origin.owners];
    const slot = this.#describe(this.#lowest, owners, (name) => this.cgroups.create(name));
    removeTree(slot.directory);
    ensureDirectory(slot.directory, 0o711);
    this.#mark(slot);
    return slot;
  }

  /** Marks the slot of an adopted QEMU as taken. */
  reserve(number: number, owners: readonly number[]): Slot {
    const slot = this.#describe(number, owners, (name) => this.cgroups.existing(name));
    this.#mark(slot);
    return slot;
  }

  /** Forgets a reservation; nothing of the slot is touched. */
  unreserve(slot: Slot): void {
    this.#free(slot);
  }

  #mark({ number, owners }: Slot): void {
    this.#taken.add(number);
    this.#ended.delete(number);
    for (const owner of owners) {
      this.#owned.set(owner, (this.#owned.get(owner) ?? 0) + 1);
      if (!this.#taken.has(owner)) this.#ended.add(owner);
      this.#taken.add(owner);
    }
  }

  #free({ number, owners }: Slot): void {
    this.#ended.add(number);
    for (const owner of owners) {
      const others = (this.#owned.get(owner) ?? 1) - 1;
      if (others > 0) this.#owned.set(owner, others);
      else this.#owned.delete(owner);
    }
    for (const each of [number, ...owners]) {
      if (!this.#ended.has(each) || this.#owned.has(each)) continue;
      this.#ended.delete(each);
      this.#taken.delete(each);
      this.#lowest = Math.min(this.#lowest, each);
    }
  }

  /** Removes what an earlier daemon has left of slots that are not taken; `end` ends a process and waits for it. */
  sweep(end: (pid: number) => void): void {
    const isFree = (name: string) => {
      const number = Number(name.replace(/^q/, ""));
      return !this.#taken.has(number) || this.#ended.has(number);
    };
    for (const name of this.cgroups.names().filter(isFree)) {
      const group = this.cgroups.existing(name);
      for (const pid of group.pids()) end(pid);
      group.remove();
    }
    const directory = join(this.runDir, "q");
    for (const name of namesBelow(directory).filter(isFree)) removeTree(join(directory, name));
  }

  /** Removes the group of all VMs, unless there still are some. */
  close(): void {
    this.cgroups.remove();
  }

  /** Gives a slot back once its QEMU has ended: directory and control group go. */
  release(slot: Slot): void {
    for (const path of slot.files) revokeFile(path);
    removeTree(slot.directory);
    slot.cgroup.remove();
    this.#free(slot);
  }

  #describe(number: number, owners: readonly number[], group: (name: string) => Cgroup): Slot {
    const directory = join(this.runDir, "q", String(number));
    return {
      number,
      owners,
      uid: this.uidBase + 1 + number,
      directory,
      qmpPath: join(directory, "qmp"),
      agentPath: join(directory, "agent"),
      logPath: join(directory, "log"),
      cgroup: group(`q${number}`),
      files: new Set(),
    };
  }
}
