/**
 * Prepared QEMUs of one template: blocked on their state socket, and warm clones (resumed, warmed, workload frozen, paused).
 * Refilled one at a time in the background, at the lowest CPU weight, so that requests do not feel it.
 */
import type { MayflyError } from "../contract/errors.ts";
import { Deadline } from "../sys/deadline.ts";
import { availableMemoryBytes } from "../sys/host.ts";
import type { LoadedTemplate } from "../template/store.ts";
import { spawnBlocked, type WarmClone } from "./clone.ts";
import { LIMITS_MS, type PoolSizes } from "./config.ts";
import type { Host } from "./host.ts";
import { PoolShares } from "./pool-shares.ts";
import type { QemuProcess } from "./qemu-process.ts";
import type { WarmRoot } from "./rehearsal.ts";
import { makeWarmClone } from "./warm-clone.ts";
import { templateDisks } from "./warmed.ts";

/** Members that may fail or die one after the other before the pool waits for the next request. */
const MAX_FAILURES = 3;

/** Memory beyond the reserve without which nothing is prepared: what a start was given must not go to the pool right after it. */
const HEADROOM_BYTES = 128 * 2 ** 20;

/** What a pool gives out. */
export type Prepared = { kind: "warm"; clone: WarmClone } | { kind: "blocked"; qemu: QemuProcess };

/** The pool of one template. */
export class Pool {
  readonly #blocked: QemuProcess[] = [];
  readonly #warm: WarmClone[] = [];
  #refilling: Promise<void> | undefined;
  #failures = 0;
  readonly #closing = new AbortController();
  readonly #shares = new PoolShares();
  /** Called when a refill failed or the pool became full again. */
  onChange: ((change: { type: "refilled" } | { type: "refill_failed"; error: unknown }) => void) | undefined;

  constructor(
    private readonly host: Host,
    readonly template: LoadedTemplate,
    private target: PoolSizes,
  ) {}

  get sizes(): PoolSizes {
    return { blocked: this.#blocked.length, warm: this.#warm.length };
  }

  get targets(): PoolSizes {
    return this.target;
  }

  /**
   * Takes the best that is there: one that was warmed for the image that is asked for, before one that was warmed for none.
   * @returns undefined when the pool has nothing that fits.
   */
  take(root: WarmRoot | undefined): Prepared | undefined {
    this.#shares.asked(root);
    const clone = this.#takeWarm(root?.path) ?? this.#takeWarm(undefined);
    const qemu = clone?.qemu ?? this.#blocked.shift();
    if (qemu === undefined) return undefined;
    qemu.slot.cgroup.prioritise("serving");
    return clone === undefined ? { kind: "blocked", qemu } : { kind: "warm", clone };
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
    const excess = [
      ...this.#blocked.splice(target.blocked),
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
    const qemus = [...this.#blocked.splice(0), ...this.#warm.splice(0).map((clone) => clone.qemu)];
    await Promise.all(qemus.map((qemu) => qemu.kill()));
  }

  /** Ends all of it for good. */
  async close(): Promise<void> {
    this.#closing.abort();
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
        if (this.#warm.length < this.target.warm) {
          const clone = await this.#makeWarm();
          this.#failures = 0;
          // The pool may have become smaller meanwhile.
          if (this.#warm.length < this.target.warm) this.#keep(this.#warm, clone, ({ qemu }) => qemu);
          else await clone.qemu.kill();
        } else if (this.#blocked.length < this.target.blocked) {
          // Whether it lives is not known yet: that it was spawned makes up for no failure.
          this.#keep(this.#blocked, this.#makeBlocked(), (qemu) => qemu);
        } else break;
      } catch (error) {
        this.#failures += 1;
        this.onChange?.({ type: "refill_failed", error });
      }
    }
    if (this.#failures === 0) this.onChange?.({ type: "refilled" });
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

  /** A clone that has run what every first request runs, and is paused again: it costs no CPU. */
  async #makeWarm(): Promise<WarmClone> {
    const deadline = Deadline.after(LIMITS_MS.clone, this.#closing.signal);
    await using cleanup = new AsyncDisposableStack();
    this.template.check();
    const qemu = this.#makeBlocked();
    cleanup.defer(() => qemu.kill());
    const wanted = this.#shares.next(
      this.#warm.map(({ root }) => root),
      this.target.warm,
    );
    const common: WarmRoot = { path: this.host.config.artifacts.rehearsal.path, fstype: "erofs" };
    const rehearsal = { root: wanted ?? common, keep: wanted !== undefined };
    const clone = await makeWarmClone(qemu, this.template, rehearsal, deadline).catch((error: unknown) => {
      if (wanted !== undefined) this.#shares.refused();
      throw error;
    });
    cleanup.move();
    return clone;
  }
}

/** Why a refill failed, for events. */
export function refillFailure(error: unknown): string {
  return error instanceof Error ? (error as MayflyError).message : String(error);
}
