/** The checks of one VM, with time in the test's hand. */
import { describe, expect, test } from "bun:test";
import { FakeClock } from "../../tests/support/fake-clock.ts";
import type { Health } from "../contract/container.ts";
import { type HealthPlan, planHealth, startingHealth } from "./health.ts";
import { type CheckEnd, HealthWatch } from "./health-watch.ts";

/** A VM whose checks the test ends. */
class Checked {
  readonly clock = new FakeClock();
  readonly told: string[] = [];
  readonly began: number[] = [];
  readonly watch: HealthWatch;
  atOnce = 0;
  most = 0;
  /** What the next checks do: exit with a code, or run until they are ended. */
  script: (number | "hang" | Error)[] = [];

  constructor(numbers: Partial<HealthPlan> = {}, health: Health = startingHealth(), sinceStartMs = 0) {
    const plan = { ...planHealth({ test: ["CMD", "check"] }), ...numbers } as HealthPlan;
    const tell = ({ status, failingStreak, lastExitCode }: Health) =>
      void this.told.push(`${this.clock.now()} ${status} ${failingStreak} ${lastExitCode}`);
    this.watch = new HealthWatch(
      { sinceStartMs, health, check: (signal) => this.#check(signal), tell },
      plan,
      this.clock,
    );
  }

  async #check(signal: AbortSignal): Promise<CheckEnd> {
    this.began.push(this.clock.now());
    this.atOnce += 1;
    this.most = Math.max(this.most, this.atOnce);
    const next = this.script.shift() ?? 0;
    try {
      if (next instanceof Error) throw next;
      if (next !== "hang") return { exitCode: next, output: "" };
      await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
      return { exitCode: 137, output: "" };
    } finally {
      this.atOnce -= 1;
    }
  }
}

describe("a health watch", () => {
  test("checks first after one interval, then one interval after the end of each check", async () => {
    const vm = new Checked({ intervalMs: 10 });
    await vm.clock.pass(9);
    expect(vm.began).toEqual([]);
    await vm.clock.pass(26);
    expect(vm.began).toEqual([10, 20, 30]);
    expect(vm.told[0]).toBe("10 healthy 0 0");
  });

  test("says unhealthy after the retries, and healthy again", async () => {
    const vm = new Checked({ intervalMs: 10, retries: 2 });
    vm.script = [1, 7, 3, 0];
    await vm.clock.pass(45);
    expect(vm.told).toEqual(["10 starting 1 1", "20 unhealthy 2 7", "30 unhealthy 3 3", "40 healthy 0 0"]);
  });

  test("ends a check that takes too long, and counts it once", async () => {
    const vm = new Checked({ intervalMs: 10, timeoutMs: 25, retries: 1 });
    vm.script = ["hang", "hang"];
    await vm.clock.pass(36);
    expect(vm.told).toEqual(["35 unhealthy 1 -1"]);
    await vm.clock.pass(100);
    expect(vm.began).toEqual([10, 45, 80, 90, 100, 110, 120, 130]);
    expect(vm.told.slice(0, 3)).toEqual(["35 unhealthy 1 -1", "70 unhealthy 2 -1", "80 healthy 0 0"]);
    expect(vm.most).toBe(1);
  });

  test("counts what cannot be run as failed", async () => {
    const vm = new Checked({ intervalMs: 10, retries: 1 });
    vm.script = [new Error("no such program")];
    await vm.clock.pass(11);
    expect(vm.told).toEqual(["10 unhealthy 1 -1"]);
  });

  test("is quick in the start period and excuses failures in it", async () => {
    const vm = new Checked({ intervalMs: 100, startPeriodMs: 25, startIntervalMs: 10, retries: 1 });
    vm.script = [1, 1, 1, 0];
    await vm.clock.pass(300);
    expect(vm.told).toEqual([
      "10 starting 0 1",
      "20 starting 0 1",
      "30 unhealthy 1 1",
      "130 healthy 0 0",
      "230 healthy 0 0",
    ]);
  });

  test("goes on where another daemon has left off", async () => {
    const health: Health = { status: "starting", failingStreak: 2, lastExitCode: 1, lastOutput: "" };
    const vm = new Checked({ intervalMs: 10, startPeriodMs: 50 }, health, 60);
    vm.script = [1];
    await vm.clock.pass(10);
    expect(vm.told).toEqual(["10 unhealthy 3 1"]);
  });

  test("does nothing more once it is stopped: no timer, no result, no running check", async () => {
    const idle = new Checked({ intervalMs: 10 });
    idle.watch.stop();
    await idle.clock.pass(100);
    expect(idle.began).toEqual([]);
    const busy = new Checked({ intervalMs: 10, timeoutMs: 50 });
    busy.script = ["hang"];
    await busy.clock.pass(20);
    expect(busy.atOnce).toBe(1);
    busy.watch.stop();
    await busy.clock.pass(1000);
    expect({ atOnce: busy.atOnce, told: busy.told, pending: busy.clock.pending }).toEqual({
      atOnce: 0,
      told: [],
      pending: 0,
    });
  });
});
