/**
 * One VM with an idle policy: paused when nothing is under way, later refreshed, then suspended. There is one timer for each VM, armed for the next
 * moment at which something may be due; traffic sets none.
 */
import type { IdlePolicy } from "../contract/api.ts";
import type { Clock } from "../sys/clock.ts";

/** A VM that uses more of a core than this computes, whatever moves or does not. An idle guest's ticks are below a hundredth. */
const BUSY_PART = 0.05;
/** Shortest time over which that is told: the kernel counts in hundredths of a second. */
const SAMPLE_MS = 200;

/** What a watch needs of its VM. */
export interface IdleVm {
  /** When anything last went to or from its guest, on the watch's clock. */
  activeAtMs(): number;
  /** Whether nothing is under way now. */
  isQuiet(): boolean;
  /** CPU time that it has used, in microseconds. */
  cpuTimeUs(): number;
  /**
   * Stops it if it is still quiet.
   * @param onWanted called once, when something needs it; it is told to go on by then.
   * @returns false when it was not quiet any more.
   */
  pause(onWanted: () => void): Promise<boolean>;
  /** Whether giving memory back would be worth its while. */
  isWorthRefreshing(): boolean;
  refresh(): Promise<void>;
  /** Whether it can be suspended without anybody noticing: no connection is open. */
  canSuspend(): boolean;
  /** Suspends it: it ends for its watch. @throws when that is not possible; it goes on. */
  suspend(): Promise<void>;
  /** It stands still from now on, or goes on after so many milliseconds. */
  paused(): void;
  continued(pausedMs: number): void;
  failed(doing: "pause" | "refresh" | "suspend", error: unknown): void;
}

/** Watches a VM from its construction until {@link stop}. */
export class IdleWatch {
  #cancel: () => void = () => undefined;
  #stopped = false;
  /** Something of its own is under way: refreshing, suspending. */
  #acting = false;
  #pausedAtMs: number | undefined;
  /** When somebody last used it. */
  #usedAtMs: number;
  /** What was active up to then was the watch's own doing. */
  #ownUntilMs = Number.NEGATIVE_INFINITY;
  #sample: { atMs: number; cpuUs: number };
  /** What was tried since its last use is not tried again. */
  #refreshed = false;
  #suspendTried = false;

  constructor(
    private readonly vm: IdleVm,
    private readonly policy: IdlePolicy,
    private readonly clock: Clock,
  ) {
    this.#usedAtMs = clock.now();
    this.#sample = this.#sampleNow();
    this.#wait(policy.pauseAfterMs);
  }

  /** Whether it stands still. */
  get isPaused(): boolean {
    return this.#pausedAtMs !== undefined;
  }

  /** When somebody last used it, on the watch's clock. */
  get usedAtMs(): number {
    return this.#usedAtMs;
  }

  /** No more of this. A VM that stands still is left so. */
  stop(): void {
    this.#stopped = true;
    this.#cancel();
  }

  /**
   * Memory is short: takes the next step of the policy now instead of later.
   * @returns whether there was one that may have freed something.
   */
  async hurry(): Promise<boolean> {
    if (this.#stopped || this.#acting || !this.isPaused || !this.vm.isQuiet()) return false;
    if (this.#maySuspend()) return this.#act("suspend");
    if (this.#refreshed || !this.vm.isWorthRefreshing()) return false;
    return this.#act("refresh");
  }

  #wait(ms: number): void {
    this.#cancel();
    if (!this.#stopped) this.#cancel = this.clock.after(ms, () => this.#look());
  }

  #sampleNow(): { atMs: number; cpuUs: number } {
    return { atMs: this.clock.now(), cpuUs: this.vm.cpuTimeUs() };
  }

  /** Whether it is to be paused now, and if not, when to look again. */
  #look(): void {
    if (this.#stopped || this.#acting || this.isPaused) return;
    const { pauseAfterMs } = this.policy;
    this.#noteUse();
    const idleMs = this.clock.now() - this.#usedAtMs;
    if (idleMs < pauseAfterMs || !this.vm.isQuiet()) {
      this.#sample = this.#sampleNow();
      this.#wait(Math.max(idleMs < pauseAfterMs ? pauseAfterMs - idleMs : pauseAfterMs, SAMPLE_MS));
      return;
    }
    const before = this.#sample;
    const now = this.#sampleNow();
    const sampledMs = now.atMs - before.atMs;
    if (sampledMs < SAMPLE_MS) {
      this.#wait(SAMPLE_MS - sampledMs);
      return;
    }
    this.#sample = now;
    if ((now.cpuUs - before.cpuUs) / 1000 > sampledMs * BUSY_PART) this.#wait(Math.max(pauseAfterMs, SAMPLE_MS));
    else void this.#pause();
  }

  /** Somebody has used it since: what was tried before may be tried again. */
  #noteUse(): void {
    const activeMs = this.vm.activeAtMs();
    if (activeMs <= this.#ownUntilMs || activeMs <= this.#usedAtMs) return;
    this.#usedAtMs = activeMs;
    this.#refreshed = false;
    this.#suspendTried = false;
  }

  async #pause(): Promise<void> {
    const { pauseAfterMs } = this.policy;
    let wanted = false;
    try {
      const isPaused = await this.vm.pause(() => {
        wanted = true;
        this.#wanted();
      });
      if (this.#stopped) return;
      if (!isPaused) return this.#wait(pauseAfterMs);
      if (wanted) return;
      this.#pausedAtMs = this.clock.now();
      this.vm.paused();
      this.#rest();
    } catch (error) {
      this.vm.failed("pause", error);
      this.#wait(Math.max(10 * pauseAfterMs, 10_000));
    }
  }

  /** It goes on: something needs it. */
  #wanted(): void {
    const pausedAtMs = this.#pausedAtMs;
    this.#pausedAtMs = undefined;
    if (this.#stopped) return;
    if (pausedAtMs !== undefined) this.vm.continued(this.clock.now() - pausedAtMs);
    this.#wait(this.policy.pauseAfterMs);
  }

  /** Waits for what is due next while it stands still. */
  #rest(): void {
    const { refreshAfterMs, suspendAfterMs, policy } = this.policy;
    const times = [
      ...(this.#refreshed ? [] : [refreshAfterMs]),
      ...(policy === "suspend" && !this.#suspendTried ? [suspendAfterMs] : []),
    ];
    this.#cancel();
    if (times.length === 0 || this.#stopped) return;
    const dueMs = this.#usedAtMs + Math.min(...times) - this.clock.now();
    this.#cancel = this.clock.after(Math.max(0, dueMs), () => this.#due());
  }

  #due(): void {
    if (this.#stopped || this.#acting || !this.isPaused) return;
    const idleMs = this.clock.now() - this.#usedAtMs;
    if (this.policy.policy === "suspend" && !this.#suspendTried && idleMs >= this.policy.suspendAfterMs) {
      if (this.#maySuspend()) return void this.#act("suspend");
      // Somebody holds a connection open: when that goes, it is used, and all of this begins anew.
      this.#suspendTried = true;
    }
    if (!this.#refreshed && idleMs >= this.policy.refreshAfterMs) {
      if (this.vm.isWorthRefreshing()) return void this.#act("refresh");
      this.#refreshed = true;
    }
    this.#rest();
  }

  #maySuspend(): boolean {
    return this.policy.policy === "suspend" && !this.#suspendTried && this.vm.canSuspend();
  }

  /** Does something that lets it run for a while, which does not count as use. @returns whether it was done. */
  async #act(doing: "refresh" | "suspend"): Promise<boolean> {
    if (doing === "refresh") this.#refreshed = true;
    else this.#suspendTried = true;
    this.#cancel();
    this.#acting = true;
    try {
      await (doing === "refresh" ? this.vm.refresh() : this.vm.suspend());
      return true;
    } catch (error) {
      if (!this.#stopped) this.vm.failed(doing, error);
      return false;
    } finally {
      this.#acting = false;
      this.#ownUntilMs = this.clock.now();
      this.#sample = this.#sampleNow();
      if (this.isPaused) this.#rest();
      else this.#wait(SAMPLE_MS);
    }
  }
}
