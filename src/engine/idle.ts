/** The idle policies of all VMs that have one. Others cost nothing. */
import type { AgentClient } from "../agent/client.ts";
import type { IdlePolicy, Vm } from "../contract/api.ts";
import type { QmpClient } from "../qmp/client.ts";
import type { Clock } from "../sys/clock.ts";
import { Deadline, nowMs, realtimeNs } from "../sys/deadline.ts";
import { cpuTimeUsOf, uniqueMemoryOf } from "../sys/process.ts";
import { LIMITS_MS } from "./config.ts";
import type { Events } from "./events.ts";
import { type IdleVm, IdleWatch } from "./idle-watch.ts";
import type { Metrics } from "./metrics.ts";
import type { VmRecord } from "./records.ts";

/** Guest memory that a VM must have to itself, and have got since it was last refreshed, before that is worth waking it up. */
const WORTH_REFRESHING_BYTES = 16 << 20;

/** Where the records are. */
export interface IdleRecords {
  record(id: string): VmRecord | undefined;
  /** Changes what is shown of a VM, and not what is recorded of it. */
  show(id: string, change: (vm: Vm) => Vm): void;
}

/** What is needed of a VM that runs. */
export interface IdleSubject {
  readonly id: string;
  /** Whether nothing is under way in it. */
  readonly isQuiet: boolean;
  readonly agent: Pick<AgentClient, "activeAtMs" | "beforeNext" | "time" | "tcpConnections">;
  readonly clone: {
    readonly qemu: {
      readonly pid: number;
      qmp(deadline: Deadline): Promise<Pick<QmpClient, "execute">>;
      untilExit<T>(promise: Promise<T>, stage: string): Promise<T>;
    };
    readonly template: { readonly memoryPath: string };
  };
}

/** Watches by VM. */
export class Idle {
  readonly #watches = new Map<string, IdleWatch>();
  /** Gives memory back; suspends. Wired when the engine is opened. */
  refresh: (id: string, deadline: Deadline) => Promise<unknown> = () => Promise.resolve();
  suspend: (id: string, deadline: Deadline) => Promise<unknown> = () => Promise.resolve();

  constructor(
    private readonly records: IdleRecords,
    private readonly clock: Clock,
    private readonly events: Events,
    private readonly metrics: Metrics,
  ) {}

  /** Begins to watch a VM that runs, if it has a policy. */
  begin(running: IdleSubject): void {
    this.end(running.id);
    const policy = this.records.record(running.id)?.vm.idle;
    if (policy !== undefined) this.#watches.set(running.id, this.#watch(running, policy));
  }

  /** No more of a VM, which has ended. */
  end(id: string): void {
    this.#watches.get(id)?.stop();
    this.#watches.delete(id);
  }

  /** No more of any: the next daemon goes on. */
  letGo(): void {
    for (const watch of this.#watches.values()) watch.stop();
    this.#watches.clear();
  }

  /** Whether a VM stands still. */
  isPaused(id: string): boolean {
    return this.#watches.get(id)?.isPaused === true;
  }

  /** How many stand still. */
  get pausedCount(): number {
    return [...this.#watches.values()].filter(({ isPaused }) => isPaused).length;
  }

  /**
   * Memory is short: the idle VM that was used least recently takes the next step of its policy.
   * @returns whether memory may have become free; false when no idle VM has anything to give.
   */
  async relieve(): Promise<boolean> {
    const paused = [...this.#watches.values()].filter(({ isPaused }) => isPaused);
    for (const watch of paused.toSorted((a, b) => a.usedAtMs - b.usedAtMs)) if (await watch.hurry()) return true;
    return false;
  }

  #watch(running: IdleSubject, policy: IdlePolicy): IdleWatch {
    const { id, agent } = running;
    const { qemu, template } = running.clone;
    const name = () => this.records.record(id)?.vm.name;
    const guestBytes = () => uniqueMemoryOf(qemu.pid, template.memoryPath)?.guestBytes ?? 0;
    let leastBytes = 0;
    const vm: IdleVm = {
      activeAtMs: () => agent.activeAtMs,
      isQuiet: () => running.isQuiet && this.records.record(id)?.vm.state === "running",
      cpuTimeUs: () => cpuTimeUsOf(qemu.pid),
      pause: (onWanted) => this.#pause(running, () => vm.isQuiet(), onWanted),
      isWorthRefreshing: () => guestBytes() >= leastBytes + WORTH_REFRESHING_BYTES,
      refresh: async () => {
        await this.refresh(id, Deadline.after(LIMITS_MS.clone));
        leastBytes = guestBytes();
        this.metrics.idled("refresh");
      },
      canSuspend: () => agent.tcpConnections === 0,
      suspend: async () => {
        await this.suspend(id, Deadline.after(LIMITS_MS.clone));
        this.metrics.idled("suspend");
      },
      paused: () => {
        this.metrics.idled("pause");
        this.records.show(id, (shown) => ({ ...shown, pausedAt: new Date().toISOString() }));
        this.events.emit("vm.paused", id, name());
      },
      continued: (pausedMs) => {
        this.records.show(id, ({ pausedAt: _, ...shown }) => shown);
        this.events.emit("vm.continued", id, name(), { pausedMs: Math.round(pausedMs) });
      },
      failed: (doing, error) => {
        const reason = error instanceof Error ? error.message : String(error);
        this.events.emit("vm.idle_failed", id, name(), { doing, reason });
      },
    };
    return new IdleWatch(vm, policy, this.clock);
  }

  /**
   * Stops the vCPUs. Whatever is for the guest lets them go on before it leaves: QEMU takes its commands in order, so that `cont` comes after
   * `stop` however close they are, and the first thing that the guest hears is the time.
   */
  async #pause(running: IdleSubject, isQuiet: () => boolean, onWanted: () => void): Promise<boolean> {
    const { agent } = running;
    const { qemu } = running.clone;
    const qmp = await qemu.qmp(Deadline.after(LIMITS_MS.request));
    if (!isQuiet()) return false;
    const goOn = () => {
      const deadline = Deadline.after(LIMITS_MS.request);
      const wantedMs = nowMs();
      // Why it does not go on is told by what waits for its answer.
      qmp.execute("cont", undefined, deadline).catch(() => undefined);
      agent.time(realtimeNs(), deadline).then(
        () => this.metrics.continued(nowMs() - wantedMs),
        () => undefined,
      );
      onWanted();
    };
    agent.beforeNext(goOn);
    try {
      await qemu.untilExit(qmp.execute("stop", undefined, Deadline.after(LIMITS_MS.request)), "pausing");
    } catch (error) {
      agent.beforeNext(undefined);
      // It may stop yet, when it answers again.
      qmp.execute("cont", undefined, Deadline.after(LIMITS_MS.request)).catch(() => undefined);
      throw error;
    }
    return true;
  }
}
