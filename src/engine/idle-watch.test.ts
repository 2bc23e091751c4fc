/** An idle policy over one VM, with time in the test's hand. */
import { describe, expect, test } from "bun:test";
import { FakeClock } from "../../tests/support/fake-clock.ts";
import type { IdlePolicy } from "../contract/idle.ts";
import { type IdleVm, IdleWatch } from "./idle-watch.ts";

const POLICY: IdlePolicy = { policy: "suspend", pauseAfterMs: 500, refreshAfterMs: 10_000, suspendAfterMs: 60_000 };

/** A VM that the test uses. */
class Fake implements IdleVm {
  readonly clock = new FakeClock();
  readonly told: string[] = [];
  readonly watch: IdleWatch;
  activeMs = 0;
  quiet = true;
  cpuUs = 0;
  /** Of a core, while it runs. */
  load = 0;
  wantedWhileStopping = false;
  worth = false;
  connected = false;
  failing: "pause" | "refresh" | "suspend" | undefined;
  onWanted: (() => void) | undefined;
  #ranAtMs = 0;

  constructor(policy: Partial<IdlePolicy> = {}) {
    this.watch = new IdleWatch(this, { ...POLICY, ...policy }, this.clock);
  }

  /** Bytes go to the guest. */
  use(): void {
    this.activeMs = this.clock.now();
    const wanted = this.onWanted;
    this.onWanted = undefined;
    wanted?.();
  }

  activeAtMs = () => this.activeMs;
  isQuiet = () => this.quiet;
  cpuTimeUs(): number {
    if (!this.watch?.isPaused) this.cpuUs += (this.clock.now() - this.#ranAtMs) * 1000 * this.load;
    this.#ranAtMs = this.clock.now();
    return this.cpuUs;
  }
  async pause(onWanted: () => void): Promise<boolean> {
    if (this.failing === "pause") throw new Error("no answer");
    if (!this.quiet) return false;
    this.onWanted = onWanted;
    if (this.wantedWhileStopping) this.use();
    return true;
  }
  isWorthRefreshing = () => this.worth;
  async refresh(): Promise<void> {
    this.#say("refresh");
    this.use();
    if (this.failing === "refresh") throw new Error("cannot");
    this.worth = false;
  }
  canSuspend = () => !this.connected;
  async suspend(): Promise<void> {
    this.#say("suspend");
    this.use();
    if (this.failing === "suspend") throw new Error("cannot");
    this.watch.stop();
  }
  paused = () => this.#say("paused");
  continued = (pausedMs: number) => this.#say(`continued after ${pausedMs}`);
  failed = (doing: string, error: unknown) =>
    this.#say(`${doing} failed: ${error instanceof Error ? error.message : error}`);

  #say(text: string): void {
    this.told.push(`${this.clock.now()} ${text}`);
  }
}

describe("an idle watch", () => {
  test("pauses what nobody uses, once for each time, within a second of its last use", async () => {
    const vm = new Fake();
    await vm.clock.pass(700);
    expect(vm.told).toEqual(["500 paused"]);
    expect(vm.watch.isPaused).toBe(true);
    await vm.clock.pass(1300);
    vm.use();
    expect(vm.watch.isPaused).toBe(false);
    expect(vm.told.at(-1)).toBe("2000 continued after 1500");
    await vm.clock.pass(400);
    vm.use();
    await vm.clock.pass(400);
    vm.use();
    expect(vm.told.length).toBe(2);
    await vm.clock.pass(1000);
    expect(vm.told.length).toBe(3);
    expect(Number.parseInt(vm.told[2] ?? "", 10)).toBeLessThanOrEqual(2800 + 1000);
    expect(vm.watch.usedAtMs).toBe(2800);
  });

  test("leaves alone what has something under way, or computes", async () => {
    const vm = new Fake();
    vm.quiet = false;
    await vm.clock.pass(5000);
    vm.quiet = true;
    vm.load = 0.5;
    await vm.clock.pass(5000);
    expect(vm.told).toEqual([]);
    vm.load = 0.01;
    await vm.clock.pass(1500);
    expect(vm.told.length).toBe(1);
  });

  test("looks at one that computes no more often than it would be paused", async () => {
    const vm = new Fake();
    vm.load = 1;
    let looks = 0;
    const cpuTimeUs = vm.cpuTimeUs.bind(vm);
    vm.cpuTimeUs = () => {
      looks += 1;
      return cpuTimeUs();
    };
    await vm.clock.pass(50_000);
    expect(looks).toBeLessThanOrEqual(101);
  });

  test("takes a use in the very moment of stopping for one", async () => {
    const vm = new Fake();
    vm.wantedWhileStopping = true;
    await vm.clock.pass(600);
    expect(vm.told).toEqual([]);
    expect(vm.watch.isPaused).toBe(false);
    vm.wantedWhileStopping = false;
    await vm.clock.pass(1000);
    expect(vm.told.length).toBe(1);
  });

  test("gives memory back when it is worth it, which is no use, and suspends when it is due", async () => {
    const vm = new Fake();
    vm.worth = true;
    await vm.clock.pass(59_000);
    expect(vm.told).toEqual(["500 paused", "10000 refresh", "10000 continued after 9500", "10200 paused"]);
    await vm.clock.pass(2000);
    expect(vm.told.slice(4)).toEqual(["60000 suspend", "60000 continued after 49800"]);
    expect(vm.clock.pending).toBe(0);
  });

  test("never suspends with the policy pause", async () => {
    const vm = new Fake({ policy: "pause" });
    await vm.clock.pass(1_000_000);
    expect(vm.told).toEqual(["500 paused"]);
    expect(vm.clock.pending).toBe(0);
  });

  test("suspends nothing to which a connection is open, until it was used and is idle without", async () => {
    const vm = new Fake();
    vm.connected = true;
    await vm.clock.pass(200_000);
    expect(vm.told).toEqual(["500 paused"]);
    vm.connected = false;
    vm.use();
    await vm.clock.pass(61_000);
    expect(vm.told.filter((text) => text.endsWith("suspend"))).toEqual(["260000 suspend"]);
  });

  test("says what fails, and does not try it again before the next use", async () => {
    const vm = new Fake();
    vm.failing = "suspend";
    await vm.clock.pass(500_000);
    expect(vm.told).toEqual([
      "500 paused",
      "60000 suspend",
      "60000 continued after 59500",
      "60000 suspend failed: cannot",
      "60200 paused",
    ]);
    vm.failing = "pause";
    vm.use();
    await vm.clock.pass(12_000);
    expect(vm.told.slice(6)).toEqual(["500500 pause failed: no answer", "510500 pause failed: no answer"]);
  });

  test("hurries when memory is short: suspended if that may be, otherwise refreshed, otherwise nothing", async () => {
    const running = new Fake();
    running.quiet = false;
    await running.clock.pass(1000);
    expect(await running.watch.hurry()).toBe(false);

    const suspended = new Fake();
    await suspended.clock.pass(1000);
    expect(await suspended.watch.hurry()).toBe(true);
    expect(suspended.told.at(-2)).toBe("1000 suspend");

    const refreshed = new Fake({ policy: "pause" });
    refreshed.worth = true;
    await refreshed.clock.pass(1000);
    expect(await refreshed.watch.hurry()).toBe(true);
    expect(refreshed.told.at(-2)).toBe("1000 refresh");
    await refreshed.clock.pass(1000);
    refreshed.worth = true;
    expect(refreshed.watch.isPaused).toBe(true);
    expect(await refreshed.watch.hurry()).toBe(false);
  });

  test("does nothing after it was stopped", async () => {
    const vm = new Fake();
    await vm.clock.pass(600);
    vm.watch.stop();
    vm.use();
    await vm.clock.pass(100_000);
    expect(vm.told).toEqual(["500 paused"]);
    expect(vm.clock.pending).toBe(0);
  });
});
