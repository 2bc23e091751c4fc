/**
 * Scratch disks: what a VM writes to its root goes there instead of into memory. A VM's own is an empty overlay, written without a process, over an
 * ext4 file system that is made once for each size, `STATE/scratch/SIZE/base.ext4`, and that nobody writes.
 */
import { dirname, join } from "node:path";
import { fileSpace, newSparseFile } from "../sys/disk-files.ts";
import { makeDirectory, namesIn, removePath } from "../sys/paths.ts";
import { exists, publishDirectory, sweepUnfinished } from "../sys/publish.ts";
import { setMode } from "../sys/store-files.ts";
import { makeExt4 } from "./ext4.ts";
import { type Holder, Holds } from "./holds.ts";
import { makeOverlay } from "./overlay.ts";

/** Sizes are whole mebibytes. */
const SIZE_UNIT = 2 ** 20;
const NAME = /^\d+$/;
const IMAGE = "base.ext4";

/** A scratch disk of one VM. */
export interface ScratchDisk {
  /** Its qcow2 overlay, and the raw image that that is read over. */
  path: string;
  basePath: string;
}

/** The file systems that scratch disks begin with. One process at a time may use it. */
export class ScratchStore {
  readonly #root: string;
  readonly #holds = new Holds();
  readonly #making = new Map<string, Promise<void>>();
  readonly #removing = new Map<string, Promise<void>>();

  constructor(stateDir: string) {
    this.#root = join(stateDir, "scratch");
  }

  /** Removes what was interrupted. */
  async load(): Promise<void> {
    await makeDirectory(this.#root, 0o711);
    await sweepUnfinished(this.#root);
  }

  /** Whether a path is the image below scratch disks. */
  has(path: string): boolean {
    return path.startsWith(`${this.#root}/`);
  }

  /** Notes that a VM's scratch disk lies over a base, which then stays. */
  hold(basePath: string, vm: Holder): void {
    this.#holds.add(basePath, vm);
  }

  release(basePath: string, vmId: string): void {
    this.#holds.remove(basePath, vmId);
  }

  /**
   * Makes the scratch disk of a VM.
   * @param path of the overlay, in a directory that the VM's user can pass through.
   * @param sizeBytes rounded up to a MiB; at least 16 MiB.
   * @throws `disk_full`, `tool_missing`.
   */
  async make(path: string, sizeBytes: number, vm: Holder): Promise<ScratchDisk> {
    const bytes = Math.ceil(sizeBytes / SIZE_UNIT) * SIZE_UNIT;
    const basePath = join(this.#root, String(bytes), IMAGE);
    this.#holds.add(basePath, vm);
    try {
      await this.#removing.get(basePath);
      if (!(await exists(basePath))) await (this.#making.get(basePath) ?? this.#makeBase(basePath, bytes));
      makeOverlay(path, bytes);
    } catch (error) {
      this.#holds.remove(basePath, vm.id);
      throw error;
    }
    return { path, basePath };
  }

  /** What they take on disk, and of it what no VM needs. */
  async usage(): Promise<{ count: number; bytes: number; reclaimableBytes: number }> {
    const bases = await this.#bases();
    const bytes = (paths: readonly string[]) =>
      paths.reduce((sum, path) => sum + (fileSpace(path)?.allocatedBytes ?? 0), 0);
    const unused = bases.filter((path) => !this.#holds.isHeld(path));
    return { count: bases.length, bytes: bytes(bases), reclaimableBytes: bytes(unused) };
  }

  /** Removes those that no VM's disk lies over. @returns their paths. */
  async prune(): Promise<string[]> {
    const removed: string[] = [];
    for (const path of await this.#bases()) {
      if (this.#holds.isHeld(path)) continue;
      const removing = removePath(dirname(path)).finally(() => this.#removing.delete(path));
      this.#removing.set(path, removing);
      await removing;
      removed.push(path);
    }
    return removed;
  }

  async #bases(): Promise<string[]> {
    return (await namesIn(this.#root)).filter((name) => NAME.test(name)).map((name) => join(this.#root, name, IMAGE));
  }

  #makeBase(path: string, sizeBytes: number): Promise<void> {
    const making = this.#buildBase(path, sizeBytes).finally(() => this.#making.delete(path));
    this.#making.set(path, making);
    return making;
  }

  async #buildBase(path: string, sizeBytes: number): Promise<void> {
    await publishDirectory(dirname(path), async (directory) => {
      await setMode(directory, 0o711);
      const image = join(directory, IMAGE);
      newSparseFile(image, sizeBytes, []);
      await makeExt4(image, false);
      await setMode(image, 0o444);
    });
  }
}
