/** What a running VM holds of the host beside its QEMU: disks, volumes, listening ports. */
import type { AgentClient } from "../agent/client.ts";
import type { DiskFiles } from "../machine/devices/disk.ts";
import type { HeldRecord } from "./records.ts";

/** Disks of a VM beside its root, with what gives them back. */
export interface OwnDisks {
  disks: Omit<DiskFiles, "root">;
  volumes: readonly string[];
  holding: Holding;
}

/** Why things are given back. */
export type Release = "ended" | "never_started";

/** Something that is given back when a VM has ended. */
export interface Holding {
  /** The VM has ended, or could not be started: then nothing is to be left that was made for it. */
  release(how: Release): void | Promise<void>;
  /** The VM goes on without this daemon. */
  letGo(): void;
  /** The VM is suspended, and keeps what it holds; `wake` is called when something needs it to run. */
  park?(wake: () => void): void;
  /** The VM runs (again). */
  open?(agent: AgentClient): void;
}

/** All that one VM holds. */
export class Holdings {
  readonly #parts: Holding[] = [];

  constructor(readonly record: HeldRecord) {}

  add(part: Holding): void {
    this.#parts.push(part);
  }

  /** Adds disks, which are recorded with the VM. */
  addDisks({ disks, volumes, holding }: OwnDisks): void {
    Object.assign(this.record.disks, disks);
    this.record.volumes.push(...volumes);
    this.add(holding);
  }

  /** Whether its guest has file systems mounted that must be unmounted before it goes. */
  get needsUnmount(): boolean {
    return this.record.volumes.length > 0;
  }

  /** Gives all back, the last first. Once: what was given back may be another's already. */
  async release(how: Release = "ended"): Promise<void> {
    for (let part = this.#parts.pop(); part !== undefined; part = this.#parts.pop()) await part.release(how);
  }

  /** Keeps all of it for a VM that is suspended. */
  park(wake: () => void): void {
    for (const part of this.#parts) part.park?.(wake);
  }

  /** The VM runs again. */
  open(agent: AgentClient): void {
    for (const part of this.#parts) part.open?.(agent);
  }

  letGo(): void {
    for (const part of this.#parts.splice(0)) part.letGo();
  }
}
