/**
 * Snapshots of directories of the host, `STATE/directories/KEY/rootfs.erofs`: made when a VM is to see a directory, and used again while nothing in
 * the directory has changed. A VM sees the directory as it was, whatever becomes of it.
 */
import { createHash, randomBytes } from "node:crypto";
import { join } from "node:path";
import { MayflyError } from "../contract/errors.ts";
import { pause } from "../sys/deadline.ts";
import { fileSpace } from "../sys/disk-files.ts";
import { freeBytes, identityOf, makeDirectory, movePath, namesIn, removePath, resolvedPath } from "../sys/paths.ts";
import { exists, publishDirectory, sweepUnfinished } from "../sys/publish.ts";
import { seal, setMode } from "../sys/store-files.ts";
import { runTool } from "../sys/tool.ts";
import { listTree, type TreeListing } from "../sys/tree-listing.ts";
import { type Holder, Holds } from "./holds.ts";

/** A snapshot that a VM has. */
export interface DirectorySnapshot {
  key: string;
  /** Its erofs image. */
  path: string;
}

const KEY = /^[0-9a-f]{64}$/;
const IMAGE = "rootfs.erofs";
const MAX_ENTRIES = 1_000_000;
const MAX_CONTENT_BYTES = 64 * 2 ** 30;
/** Left free on the disk: a snapshot must not starve what runs. */
const RESERVE_BYTES = 64 * 2 ** 20;
const LIMIT_MS = 3_600_000;
/** How often a directory that changes meanwhile is begun again. */
const TRIES = 3;
/** A clock tick of file systems: two changes within it can have the same time. Linux' own take the time of the last tick, at most 10 ms ago. */
const TICK_MS = 50;
/** Network file systems can have ticks of a second or two: what has changed more recently than this may change again without a sign. */
const SETTLED_MS = 3_000;
/** Snapshots that nobody has and that are kept for the next time. */
const KEPT_UNUSED = 8;

/** The snapshots of one state directory. One process at a time may use it. */
export class DirectoryStore {
  readonly #root: string;
  readonly #holds = new Holds();
  /** Keys by when they were last used: the longest ago first. A key that is of no use again is not among them. */
  readonly #reusable = new Set<string>();
  readonly #making = new Map<string, Promise<void>>();
  readonly #removing = new Map<string, Promise<boolean>>();

  /** @param gid group of VMs, which alone may read the snapshots. */
  constructor(
    private readonly stateDir: string,
    private readonly gid: number,
  ) {
    this.#root = join(stateDir, "directories");
  }

  /** Reads what is there, and removes what an interrupted snapshot has left. */
  async load(): Promise<void> {
    await makeDirectory(this.#root, 0o711);
    await sweepUnfinished(this.#root);
    for (const name of await namesIn(this.#root)) if (KEY.test(name)) this.#reusable.add(name);
  }

  /** Key of the snapshot that a path is the image of; undefined if it is none's. */
  keyOf(path: string): string | undefined {
    const [key = "", name, ...rest] = path.startsWith(`${this.#root}/`)
      ? path.slice(this.#root.length + 1).split("/")
      : [];
    return KEY.test(key) && name === IMAGE && rest.length === 0 ? key : undefined;
  }

  /** Notes that a VM has a snapshot, which then stays. */
  hold(key: string, vm: Holder): void {
    this.#holds.add(key, vm);
  }

  /** Ends what {@link hold} or {@link snapshot} began. What is of no use again is removed. */
  async release(key: string, vmId: string): Promise<void> {
    if (!this.#holds.remove(key, vmId)) return;
    if (!this.#reusable.has(key)) await this.#remove(key);
    await this.#forgetOldest();
  }

  /**
   * A directory as it is now, for a VM: made, or found made already.
   * @throws MayflyError `file_not_found`; `invalid_argument` for what is no directory, has other file systems or Mayfly's own state in it, or is too
   * large; `disk_full`; `file_operation_failed` for one that cannot be read or changes all the time; `cancelled`. Nothing is left then.
   */
  async snapshot(directory: string, vm: Holder, signal?: AbortSignal): Promise<DirectorySnapshot> {
    const real = await resolvedPath(directory);
    if (real === undefined)
      throw new MayflyError("file_not_found", `Cannot mount ${directory}: there is no such directory`);
    if (!(await identityOf(real))?.isDirectory) throw refusal(directory, "it is no directory");
    if (`${this.stateDir}/`.startsWith(real === "/" ? "/" : `${real}/`)) {
      throw refusal(directory, `Mayfly keeps its state in it (${this.stateDir})`);
    }
    for (let round = 1; ; round++) {
      const before = await this.#settledListing(real, signal);
      const key = before.isReusable
        ? before.sha256
        : createHash("sha256").update(before.sha256).update(randomBytes(16)).digest("hex");
      // Held before anything is waited for, so that nobody removes it.
      this.#holds.add(key, vm);
      try {
        if (await this.#provide(key, real, before, signal)) {
          if (before.isReusable) this.#touch(key);
          return { key, path: join(this.#root, key, IMAGE) };
        }
      } catch (error) {
        await this.release(key, vm.id);
        throw error;
      }
      await this.release(key, vm.id);
      if (round === TRIES) {
        throw new MayflyError(
          "file_operation_failed",
          `Cannot take a snapshot of ${directory}: it changed each of the ${TRIES} times that it was read`,
          { details: { path: directory, remedy: "copy it first, or use a named volume and mayfly cp" } },
        );
      }
    }
  }

  /** What snapshots take on disk, and of it those that nobody has. */
  async usage(): Promise<{ count: number; bytes: number; reclaimableBytes: number }> {
    const keys = (await namesIn(this.#root)).filter((name) => KEY.test(name));
    const bytes = (list: readonly string[]) => list.reduce((total, key) => total + this.#bytesOf(key), 0);
    const unused = keys.filter((key) => !this.#holds.isHeld(key));
    return { count: keys.length, bytes: bytes(keys), reclaimableBytes: bytes(unused) };
  }

  /** Removes the snapshots that nobody has. @returns their keys. */
  async prune(): Promise<string[]> {
    const removed: string[] = [];
    for (const key of [...this.#reusable]) if (await this.#remove(key)) removed.push(key);
    return removed;
  }

  /** A listing of a tree in which every later change shows, and whether a snapshot of it can be used again. */
  async #settledListing(real: string, signal: AbortSignal | undefined): Promise<TreeListing & { isReusable: boolean }> {
    const limits = listingLimits(signal);
    let startedMs = Date.now();
    let listing = await listTree(real, limits);
    if (listing.newestMs > startedMs - TICK_MS) {
      // Something was changed in this very moment: once the clock has gone on, a further change has another time.
      await pause(TICK_MS);
      startedMs = Date.now();
      listing = await listTree(real, limits);
    }
    return { ...listing, isReusable: listing.newestMs < startedMs - SETTLED_MS };
  }

  /** @returns whether the snapshot is there; false when the directory changed while it was read. */
  async #provide(key: string, real: string, before: TreeListing, signal: AbortSignal | undefined): Promise<boolean> {
    await this.#removing.get(key);
    if (await exists(join(this.#root, key))) return true;
    const others = this.#making.get(key);
    try {
      await (others ?? this.#make(key, real, before, signal));
      return true;
    } catch (error) {
      if (error === CHANGED) return false;
      // Who began it has lost interest: that says nothing of this one.
      const isOthers = others !== undefined && error instanceof MayflyError && error.code === "cancelled";
      if (isOthers && !signal?.aborted) return this.#provide(key, real, before, signal);
      throw error;
    }
  }

  #make(key: string, real: string, before: TreeListing, signal: AbortSignal | undefined): Promise<void> {
    const making = this.#pack(key, real, before, signal).finally(() => this.#making.delete(key));
    this.#making.set(key, making);
    return making;
  }

  async #pack(key: string, real: string, before: TreeListing, signal: AbortSignal | undefined): Promise<void> {
    const free = (await freeBytes(this.#root)) - RESERVE_BYTES;
    if (before.contentBytes > free) {
      throw new MayflyError(
        "disk_full",
        `Cannot take a snapshot of ${real}: it has ${before.contentBytes} bytes, ${free} are free`,
      );
    }
    await publishDirectory(join(this.#root, key), async (workplace) => {
      await setMode(workplace, 0o711);
      const image = join(workplace, IMAGE);
      const failure = await packErofs(real, image, signal).catch((error: unknown) => error);
      const after = await listTree(real, listingLimits(signal));
      if (after.sha256 !== before.sha256) throw CHANGED;
      if (failure !== undefined) throw failure;
      await seal(image, this.gid, 0o440);
    });
  }

  #touch(key: string): void {
    this.#reusable.delete(key);
    this.#reusable.add(key);
  }

  async #forgetOldest(): Promise<void> {
    const unused = [...this.#reusable].filter((key) => !this.#holds.isHeld(key));
    for (const key of unused.slice(0, Math.max(0, unused.length - KEPT_UNUSED))) await this.#remove(key);
  }

  /** @returns whether it was there and is gone: not if somebody has it. Who wants it meanwhile waits until it is gone, and makes it again. */
  async #remove(key: string): Promise<boolean> {
    if (this.#holds.isHeld(key) || this.#removing.has(key)) return false;
    this.#reusable.delete(key);
    const removing = this.#takeAway(key).finally(() => this.#removing.delete(key));
    this.#removing.set(key, removing);
    return removing;
  }

  async #takeAway(key: string): Promise<boolean> {
    const place = join(this.#root, key);
    if (!(await exists(place))) return false;
    const away = join(this.#root, `.unfinished-removed-${key}`);
    await removePath(away);
    await movePath(place, away);
    await removePath(away);
    return true;
  }

  #bytesOf(key: string): number {
    return fileSpace(join(this.#root, key, IMAGE))?.allocatedBytes ?? 0;
  }
}

function listingLimits(signal: AbortSignal | undefined) {
  const limits = { entries: MAX_ENTRIES, contentBytes: MAX_CONTENT_BYTES, deadlineMs: LIMIT_MS };
  return signal === undefined ? limits : { ...limits, signal };
}

/** Thrown to stop the publishing of a snapshot whose directory has changed. */
const CHANGED = new MayflyError("file_operation_failed", "The directory changed while it was read");

/** mkfs.erofs(1): LZ4, owners, modes, times and extended attributes as they are. @returns undefined. */
async function packErofs(directory: string, image: string, signal: AbortSignal | undefined): Promise<undefined> {
  const command = ["mkfs.erofs", "--quiet", "-zlz4", "--preserve-mtime", image, directory];
  try {
    await runTool(command, { deadlineMs: LIMIT_MS, endsWithUs: true, ...(signal === undefined ? {} : { signal }) });
    return undefined;
  } catch (error) {
    if (!(error instanceof MayflyError) || error.code !== "tool_failed") throw error;
    const tail = error.details.stderrTail ?? "";
    const isFull = /No space left|write error|-28\b/i.test(tail) && (await freeBytes(image)) < RESERVE_BYTES;
    const why = tail.split("\n").at(-1) ?? "";
    throw new MayflyError(
      isFull ? "disk_full" : "file_operation_failed",
      `Cannot take a snapshot of ${directory}: ${isFull ? "no space left on the disk" : why}`,
      { details: { ...error.details, path: directory }, cause: error },
    );
  }
}

function refusal(directory: string, why: string): MayflyError {
  return new MayflyError("invalid_argument", `Cannot mount ${directory}: ${why}`, { details: { path: directory } });
}
