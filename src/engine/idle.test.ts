/** Idle policies of several VMs: what their QEMUs and guests are told, in which order, and who goes first when memory is short. */
import { describe, expect, test } from "bun:test";
import { FakeClock } from "../../tests/support/fake-clock.ts";
import { sampleVm } from "../../tests/support/samples.ts";
import type { IdlePolicy } from "../contract/idle.ts";
import { Events } from "./events.ts";
import { Idle, type IdleSubject } from "./idle.ts";
import { Metrics } from "./metrics.ts";
import { admittedRecord, type VmRecord } from "./records.ts";

const POLICY: IdlePolicy = { policy: "suspend", pauseAfterMs: 500, refreshAfterMs: 10_000, suspendAfterMs: 60_000 };

/** Idle policies of VMs that the test has made up. */
class Ground {
  readonly clock = new FakeClock();
  readonly events = new Events();
  readonly records = new Map<string, VmRecord>();
  /** What was asked of whom, in order. */
  readonly log: string[] = [];
  readonly told: string[] = [];
  readonly idle: Idle;
  readonly #wanted = new Map<string, () => void>();
  readonly #activeAtMs = new Map<string, number>();
  connections = 0;
  failing = new Set<string>();

  constructor() {
    const records = {
      record: (id: string) => this.records.get(id),
      show: (id: string, change: (vm: VmRecord["vm"]) => VmRecord["vm"]) => {
        const record = this.records.get(id);
        if (record !== undefined) this.records.set(id, { ...record, vm: change(record.vm) });
      },
    };
    this.idle = new Idle(records, this.clock, this.events, new Metrics());
    this.idle.suspend = async (id) => {
      this.log.push(`${id} suspend`);
      this.use(id);
      this.idle.end(id);
    };
    this.events.subscribe(({ type, id, attributes }) => this.told.push(`${id} ${type} ${JSON.stringify(attributes)}`));
  }

  /** A VM with a policy that runs. */
  add(id: string, policy: Partial<IdlePolicy> = {}): void {
    this.records.set(
      id,
      admittedRecord({ ...sampleVm, id, name: id, state: "running", idle: { ...POLICY, ...policy } }),
    );
    this.use(id);
    this.idle.begin(this.#subject(id));
  }

  /** A frame goes to its guest. */
  use(id: string): void {
    const wanted = this.#wanted.get(id);
    this.#wanted.delete(id);
    wanted?.();
    this.#activeAtMs.set(id, this.clock.now());
  }

  shown(id: string): string | undefined {
    return this.records.get(id)?.vm.pausedAt;
  }

  #subject(id: string): IdleSubject {
    const ground = this;
    return {
      id,
      isQuiet: true,
      agent: {
        get activeAtMs() {
          return ground.#activeAtMs.get(id) ?? 0;
        },
        get tcpConnections() {
          return ground.connections;
        },
        beforeNext: (wanted) => {
          if (wanted === undefined) this.#wanted.delete(id);
          else this.#wanted.set(id, wanted);
        },
        time: async () => {
          this.log.push(`${id} time`);
          return { realtimeNs: 0n, monotonicNs: 0n };
        },
      },
      clone: {
        qemu: {
          pid: 0,
          qmp: async () => ({
            execute: async (command: string) => {
              this.log.push(`${id} ${command}`);
              if (this.failing.has(`${id} ${command}`)) throw new Error("no answer");
            },
          }),
          untilExit: (promise) => promise,
        },
        template: { memoryPath: "/nowhere" },
      },
    };
  }
}

describe("idle VMs", () => {
  test("are stopped, and go on before the frame that needs them, with the time first", async () => {
    const ground = new Ground();
    ground.add("web");
    await ground.clock.pass(1000);
    expect(ground.log).toEqual(["web stop"]);
    expect(ground.shown("web")).toBeDefined();
    expect([ground.idle.isPaused("web"), ground.idle.pausedCount]).toEqual([true, 1]);
    ground.use("web");
    ground.log.push("frame");
    expect(ground.log).toEqual(["web stop", "web cont", "web time", "frame"]);
    expect(ground.shown("web")).toBeUndefined();
    expect([ground.idle.isPaused("web"), ground.idle.pausedCount]).toEqual([false, 0]);
    expect(ground.told).toEqual(["web vm.paused {}", 'web vm.continued {"pausedMs":500}']);
  });

  test("that do not answer are told to go on, and it is said", async () => {
    const ground = new Ground();
    ground.failing.add("web stop");
    ground.add("web");
    await ground.clock.pass(1000);
    expect(ground.log).toEqual(["web stop", "web cont"]);
    expect(ground.told).toEqual(['web vm.idle_failed {"doing":"pause","reason":"no answer"}']);
    ground.use("web");
    expect(ground.log.length).toBe(2);
  });

  test("are suspended one by one when memory is short, the one used least recently first, until none is left", async () => {
    const ground = new Ground();
    for (const id of ["first", "second", "third"]) ground.add(id);
    ground.add("never-away", { policy: "pause" });
    await ground.clock.pass(1000);
    ground.use("first");
    await ground.clock.pass(1000);
    ground.use("second");
    expect(await ground.idle.relieve()).toBe(true);
    await ground.clock.pass(1000);
    expect(await ground.idle.relieve()).toBe(true);
    expect(await ground.idle.relieve()).toBe(true);
    expect(await ground.idle.relieve()).toBe(false);
    expect(ground.log.filter((text) => text.endsWith("suspend"))).toEqual([
      "third suspend",
      "first suspend",
      "second suspend",
    ]);
  });

  test("to which a connection is open are not", async () => {
    const ground = new Ground();
    ground.add("web");
    ground.connections = 1;
    await ground.clock.pass(1000);
    expect(await ground.idle.relieve()).toBe(false);
  });

  test("are left as they are for the next daemon, and nothing is left of one that ended", async () => {
    const ground = new Ground();
    ground.add("web");
    ground.add("gone");
    await ground.clock.pass(1000);
    ground.idle.end("gone");
    ground.idle.letGo();
    expect(ground.idle.pausedCount).toBe(0);
    await ground.clock.pass(1_000_000);
    expect(ground.log).toEqual(["web stop", "gone stop"]);
    expect(ground.clock.pending).toBe(0);
  });
});
