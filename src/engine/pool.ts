/**
 * Prepared QEMUs of one template: blocked on their state socket, and warm clones (resumed, warmed, workload frozen, paused).
 * Refilled one at a time in the background, at the lowest CPU weight, so that requests do not feel it.
 */
import { MayflyError } from "../contract/errors.ts";
import { Deadline } from "../sys/deadline.ts";
import { availableMemoryBytes } from "../sys/host.ts";
import type { LoadedTemplate } from "../template/store.ts";
import { spawnBlocked, type WarmClone } from "./clone.ts";
import { LIMITS_MS, type PoolSizes, type PoolState } from "./config.ts";
import type { Host } from "./host.ts";
import { ParentVm } from "./parent-vm.ts";
import { PoolShares } from "./pool-shares.ts";
import type { ProcessImages } from "./process-images.ts";
import type { QemuProcess } from "./qemu-process.ts";
import type { WarmRoot } from "./rehearsal.ts";
import { makeWarmClone, PARENT_ROUNDS, warmCopy } from "./warm-clone.ts";
import { templateDisks } from "./warmed.ts";

/** Members that may fail or die one after the other before the pool waits for the next request. */
const MAX_FAILURES = 3;

/** Memory beyond the reserve without which nothing is prepared: what a start was given must not go to the pool right after it. */
const HEADROOM_BYTES = 128 * 2 ** 20;

/** Parents in a row that give no copy at all before clones are made without: what a host does not allow now it will not allow later. */
const MAX_BARREN_PARENTS = 2;

/**
 * How long a refill lets a request go first. Making a copy takes a processor some 30 ms, and caches with it: just when what has been started runs
 * its first command.
 */
const AFTER_REQUEST_MS = 100;

/** What a pool gives out. */
export type Prepared =
  | { kind: "warm"; path: "warm" | "copy" | "pool"; clone: WarmClone }
  | { kind: "blocked"; path: "pool"; qemu: QemuProcess };

/** What a pool needs of process images. */
export type PoolImages = Pick<ProcessImages, "has" | "isThere" | "make" | "spawn">;

/** The pool of one template. */
export class Pool {
  readonly #blocked: QemuProcess[] = [];
  readonly #standing: WarmClone[] = [];
  readonly #warm: WarmClone[] = [];
  /** What warm clones are copied from, where this host can. */
  #parent: ParentVm | undefined;
  /** Ends the making of one, which is not wanted any more. */
  #endMaking: (() => Promise<unknown>) | undefined;
  #barrenParents = 0;
  #refilling: Promise<void> | undefined;
  #refillLater: Timer | undefined;
  #failures = 0;
  readonly #closing = new AbortController();
  readonly #shares = new PoolShares();
  /** Called when a refill failed or the pool became full again. */
  onChange: ((change: { type: "refilled" } | { type: "refill_failed"; error: unknown }) => void) | undefined;

  constructor(
    private readonly host: Host,
    readonly template: LoadedTemplate,
    private target: PoolSizes,
    private readonly images?: PoolImages,
  ) {}

  get sizes(): PoolState {
    const [blocked, standing, warm] = [this.#blocked, this.#standing, this.#warm].map(({ length }) => length);
    return { blocked: blocked ?? 0, standing: standing ?? 0, warm: warm ?? 0, parent: this.#parent !== undefined };
  }

  get targets(): PoolState {
    const { blocked, warm, parent = warm > 0 } = this.target;
    // Under KVM a copy would have no virtual machine: that belongs to the memory of who has made it.
    const isAble = this.host.accelerator === "tcg" && this.#barrenParents < MAX_BARREN_PARENTS;
    const standing = !parent && this.#hasImage ? blocked : 0;
    return { blocked, standing, warm, parent: parent && isAble };
  }

  get #hasImage(): boolean {
    return this.images?.isThere(this.template) === true;
  }

  /** Takes a warm clone: one that was warmed for the image that is asked for, before one that was warmed for none. */
  takeWarm(root: WarmRoot | undefined): Prepared | undefined {
    this.#shares.asked(root);
    const clone = this.#takeWarm(root?.path) ?? this.#takeWarm(undefined);
    clone?.qemu.slot.cgroup.prioritise("serving");
    return clone && { kind: "warm", path: "warm", clone };
  }

  /** A copy of the parent, for who finds nothing else that is warm. @returns undefined: there is no parent, or it could not be copied. */
  async copy(deadline: Deadline): Promise<Prepared | undefined> {
    const clone = await this.#copy(deadline).catch((error: unknown) => {
      this.onChange?.({ type: "refill_failed", error });
      return undefined;
    });
    return clone && { kind: "warm", path: "copy", clone };
  }

  /**
   * Takes a QEMU that stands where the process image does, or one that waits for its state, to be a clone of this template. Going on from the image
   * is quicker than loading the state.
   */
  takePrepared(): Prepared | undefined {
    const clone = this.#standing.shift();
    clone?.qemu.slot.cgroup.prioritise("serving");
    if (clone !== undefined) return { kind: "warm", path: "pool", clone };
    if (this.#hasImage) return undefined;
    const qemu = this.takeBlocked();
    return qemu && { kind: "blocked", path: "pool", qemu };
  }

  /** Takes a QEMU that waits for its state, whichever that will be. */
  takeBlocked(): QemuProcess | undefined {
    const qemu = this.#blocked.shift();
    qemu?.slot.cgroup.prioritise("serving");
    return qemu;
  }

  #takeWarm(path: string | undefined): WarmClone | undefined {
    const index = this.#warm.findIndex((clone) => clone.root === path);
    return index < 0 ? undefined : this.#warm.splice(index, 1)[0];
  }

  /** Changes the sizes; what is too many goes. */
  async resize(target: PoolSizes): Promise<void> {
    this.target = target;
    if (!this.targets.parent) {
      await this.#endMaking?.();
      await this.#endParent();
    }
    const excess = [
      ...this.#blocked.splice(target.blocked),
      ...this.#standing.splice(this.targets.standing).map((clone) => clone.qemu),
      ...this.#warm.splice(target.warm).map((clone) => clone.qemu),
    ];
    await Promise.all(excess.map((qemu) => qemu.kill()));
    this.refill();
  }

  /** Starts refilling if anything is missing. Returns at once; a request is a reason to try again after failures. */
  refill(): void {
    this.#failures = 0;
    this.#startFilling();
  }

  /** The same after a request, a moment later. */
  refillSoon(): void {
    if (this.#closed) return;
    this.#refillLater ??= setTimeout(() => {
      this.#refillLater = undefined;
      this.refill();
    }, AFTER_REQUEST_MS);
  }

  #startFilling(): void {
    if (this.#closed || this.#refilling !== undefined) return;
    this.#refilling = this.#fill().finally(() => {
      this.#refilling = undefined;
    });
  }

  /** Resolves when no refill is going on. */
  async settled(): Promise<void> {
    await this.#refilling;
  }

  /** Ends all of it. */
  async drain(): Promise<void> {
    const clones = [...this.#standing.splice(0), ...this.#warm.splice(0)];
    const qemus = [...this.#blocked.splice(0), ...clones.map(({ qemu }) => qemu)];
    await Promise.all([this.#endParent(), ...qemus.map((qemu) => qemu.kill())]);
  }

  async #endParent(): Promise<void> {
    const parent = this.#parent;
    this.#parent = undefined;
    await parent?.end();
  }

  /** Ends all of it for good. */
  async close(): Promise<void> {
    this.#closing.abort();
    clearTimeout(this.#refillLater);
    await this.drain();
    await this.#refilling;
    await this.drain();
  }

  get #closed(): boolean {
    return this.#closing.signal.aborted;
  }

  async #fill(): Promise<void> {
    while (!this.#closed && this.#failures < MAX_FAILURES) {
      if (availableMemoryBytes() < this.host.config.memoryReserveBytes + HEADROOM_BYTES) return;
      try {
        await this.#dropUnasked();
        if (this.#wantsParent) await this.#becomeParent();
        else if (this.#parent !== undefined && this.images?.has(this.template) === false)
          await this.#makeImage(this.images, this.#parent);
        else if (this.#warm.length < this.target.warm) {
          const clone = await this.#makeWarm();
          this.#failures = 0;
          // The pool may have become smaller meanwhile.
          if (this.#warm.length < this.target.warm) this.#keep(this.#warm, clone, ({ qemu }) => qemu);
          else await clone.qemu.kill();
        } else if (this.#standing.length < this.targets.standing) {
          this.#keep(this.#standing, this.#makeStanding(), ({ qemu }) => qemu);
        } else if (this.#blocked.length < this.target.blocked) {
          // Whether it lives is not known yet: that it was spawned makes up for no failure.
          this.#keep(this.#blocked, this.#makeBlocked(), (qemu) => qemu);
        } else {
          // However many failures it took.
          this.onChange?.({ type: "refilled" });
          return;
        }
      } catch (error) {
        this.#failures += 1;
        this.onChange?.({ type: "refill_failed", error });
      }
    }
  }

  /** Ends members for images that are not asked for any more, or have more than their share. */
  async #dropUnasked(): Promise<void> {
    const excess = this.#shares.excess(
      this.#warm.map(({ root }) => root),
      this.target.warm,
    );
    const members = excess.flatMap((index) => this.#warm[index] ?? []);
    for (const member of members) this.#warm.splice(this.#warm.indexOf(member), 1);
    await Promise.all(members.map(({ qemu }) => qemu.kill()));
  }

  /** Keeps a member, and forgets it when it ends by itself. */
  #keep<T>(members: T[], member: T, qemuOf: (member: T) => QemuProcess): void {
    members.push(member);
    qemuOf(member).exited.then(() => {
      const index = members.indexOf(member);
      if (index < 0) return;
      members.splice(index, 1);
      this.#failures += 1;
      this.#startFilling();
    });
  }

  #makeBlocked(): QemuProcess {
    const qemu = spawnBlocked(this.host, this.template, templateDisks(this.host.config.stateDir, this.template));
    qemu.slot.cgroup.prioritise("background");
    return qemu;
  }

  #makeStanding(): WarmClone {
    const clone = this.images?.spawn(this.template);
    if (clone === undefined)
      throw new MayflyError("internal", `Template ${this.template.id} has lost its process image`);
    const { qemu } = clone;
    qemu.slot.cgroup.prioritise("background");
    // Connected, it is let go on by one round trip.
    qemu.qmp(Deadline.after(LIMITS_MS.clone, this.#closing.signal)).catch(() => undefined);
    return clone;
  }

  get #wantsParent(): boolean {
    return this.targets.parent && this.#parent === undefined;
  }

  async #becomeParent(): Promise<void> {
    const unwanted = new AbortController();
    const made = this.#makeParent(AbortSignal.any([this.#closing.signal, unwanted.signal])).catch((error: unknown) => {
      // One that was told to end has not failed.
      if (!unwanted.signal.aborted) throw error;
    });
    this.#endMaking = () => {
      unwanted.abort();
      return made;
    };
    await made.finally(() => {
      this.#endMaking = undefined;
    });
  }

  async #makeParent(signal: AbortSignal): Promise<void> {
    const deadline = Deadline.after(LIMITS_MS.clone, signal);
    await using cleanup = new AsyncDisposableStack();
    const image = this.images?.spawn(this.template);
    const warm = image ?? (await this.#warmUp(undefined, PARENT_ROUNDS, deadline));
    cleanup.defer(() => warm.qemu.kill());
    const becoming = image ? ParentVm.ofImage(this.host, image, deadline) : ParentVm.of(this.host, warm, deadline);
    const parent = await becoming.catch((error: unknown) => {
      if (!isKilled(error) && !signal.aborted) this.#barrenParents += 1;
      throw error;
    });
    cleanup.move();
    this.#parent = parent;
    parent.qemu.exited.then(() => {
      if (this.#parent !== parent) return;
      this.#parent = undefined;
      this.#failures += 1;
      this.#startFilling();
    });
  }

  /**
   * Keeps what clones for which nothing is prepared go on from. A parent that cannot be written down is ended by that, and there is another; one of an
   * image that does not fit any longer makes room for one that is warmed.
   */
  async #makeImage(images: PoolImages, parent: ParentVm): Promise<void> {
    if (parent.isOfImage) return this.#endParent();
    await images.make(parent, Deadline.after(LIMITS_MS.clone, this.#closing.signal));
  }

  async #copy(deadline: Deadline): Promise<WarmClone | undefined> {
    const parent = this.#parent;
    if (parent === undefined) return undefined;
    try {
      this.template.check();
      const clone = await parent.child(deadline);
      this.#barrenParents = 0;
      return clone;
    } catch (error) {
      if (!parent.isGone) throw error;
      if (!isKilled(error)) this.#barrenParents += 1;
      if (this.#parent === parent) this.#parent = undefined;
      await parent.end();
      throw error;
    }
  }

  /** A clone that has run what every first request runs, and is paused again: it costs no CPU. */
  async #makeWarm(): Promise<WarmClone> {
    const deadline = Deadline.after(LIMITS_MS.clone, this.#closing.signal);
    const wanted = this.#shares.next(
      this.#warm.map(({ root }) => root),
      this.target.warm,
    );
    await using cleanup = new AsyncDisposableStack();
    const copy = await this.#copy(deadline);
    if (copy === undefined) return await this.#warmUp(wanted, 1, deadline);
    cleanup.defer(() => copy.qemu.kill());
    copy.qemu.slot.cgroup.prioritise("background");
    const warm = await this.#unlessRefused(wanted, warmCopy(copy, wanted, deadline));
    cleanup.move();
    return warm;
  }

  /** What cannot be warmed on an image is not tried again until that is asked for. */
  #unlessRefused<T>(wanted: WarmRoot | undefined, warming: Promise<T>): Promise<T> {
    return warming.catch((error: unknown) => {
      if (wanted !== undefined) this.#shares.refused();
      throw error;
    });
  }

  /** @param wanted root that it is warmed on, and stays on; undefined: the common one. @param rounds of the warming. */
  async #warmUp(wanted: WarmRoot | undefined, rounds: number, deadline: Deadline): Promise<WarmClone> {
    await using cleanup = new AsyncDisposableStack();
    this.template.check();
    const qemu = this.#makeBlocked();
    cleanup.defer(() => qemu.kill());
    const common: WarmRoot = { path: this.host.config.artifacts.rehearsal.path, fstype: "erofs" };
    const rehearsal = { root: wanted ?? common, keep: wanted !== undefined };
    const clone = await this.#unlessRefused(wanted, makeWarmClone(qemu, this.template, rehearsal, rounds, deadline));
    cleanup.move();
    return clone;
  }
}

/** Somebody has ended the parent or its copy: that says nothing of what this host allows. */
function isKilled(error: unknown): boolean {
  return error instanceof MayflyError && error.code === "qemu_exited";
}

/** Why a refill failed, for events. */
export function refillFailure(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
