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
  directory: string;
  qmpPath: string;
  agentPath: string;
  logPath: string;
  cgroup: Cgroup;
  /** Disks that its QEMU may write: they belong to its uid, and go back to root with the slot. */
  files: Set<string>;
}

/** Hands out slots, lowest number first, so that names and uids stay few. */
export class Slots {
  readonly cgroups: CgroupTree;
  readonly #taken = new Set<number>();
  #lowest = 0;

  constructor(
    private readonly runDir: string,
    private readonly uidBase: number,
    groupName: string,
  ) {
    this.cgroups = CgroupTree.open(groupName);
  }

  /** Takes a free slot and makes its directory and control group. @throws `limit_reached`. */
  take(): Slot {
    while (this.#taken.has(this.#lowest)) this.#lowest += 1;
    if (this.#lowest >= MAX_SLOTS) {
      throw new MayflyError("limit_reached", `Cannot start another VM: ${MAX_SLOTS} QEMU processes are running`);
    }
    const slot = this.#describe(this.#lowest, (name) => this.cgroups.create(name));
    removeTree(slot.directory);
    ensureDirectory(slot.directory, 0o711);
    this.#taken.add(slot.number);
    return slot;
  }

  /** Marks the slot of an adopted QEMU as taken. */
  reserve(number: number): Slot {
    this.#taken.add(number);
    return this.#describe(number, (name) => this.cgroups.existing(name));
  }

  /** Forgets a reservation; nothing of the slot is touched. */
  unreserve(slot: Slot): void {
    this.#taken.delete(slot.number);
    this.#lowest = Math.min(this.#lowest, slot.number);
  }

  /** Removes what an earlier daemon has left of slots that are not taken; `end` ends a process and waits for it. */
  sweep(end: (pid: number) => void): void {
    const isFree = (name: string) => !this.#taken.has(Number(name.replace(/^q/, "")));
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
    this.#taken.delete(slot.number);
    this.#lowest = Math.min(this.#lowest, slot.number);
  }

  #describe(number: number, group: (name: string) => Cgroup): Slot {
    const directory = join(this.runDir, "q", String(number));
    return {
      number,
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
