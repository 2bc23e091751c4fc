/** Admission with a host's memory, its VMs and time in the test's hand. */
import { describe, expect, test } from "bun:test";
import { rejection } from "../../tests/support/fake-peer.ts";
import { sampleVm } from "../../tests/support/samples.ts";
import type { Vm } from "../contract/api.ts";
import { Deadline } from "../sys/deadline.ts";
import { Admission, type Wanted } from "./admission.ts";
import { Metrics } from "./metrics.ts";

const MIB = 2 ** 20;
const GIB = 2 ** 30;
/** A VM of 128 MiB under TCG: its memory, QEMU's heap, translated code. */
const WHOLE = (128 + 16 + 64) * MIB;
const SMALL = 128 * MIB;

/** A host of 8.5 GiB, of which 8 are for VMs. */
class FakeHost {
  nowMs = 0;
  availableBytes = 8 * GIB;
  samples = 0;
  drains = 0;
  /** Bytes that the pools hold. */
  pooledBytes = 0;
  readonly machine: { accelerator: "kvm" | "tcg" } = { accelerator: "tcg" };
  readonly vms: Vm[] = [];
  readonly metrics = new Metrics();
  readonly admission: Admission;

  constructor(overcommit = 10) {
    this.admission = new Admission({
      config: { overcommit, memoryReserveBytes: 512 * MIB },
      host: this.machine,
      vms: { list: () => this.vms },
      pools: { drain: async () => this.#drain() },
      memory: { totalBytes: 8.5 * GIB, availableBytes: () => this.#sampled() },
      clock: { now: () => this.nowMs },
      metrics: this.metrics,
    });
  }

  #sampled(): number {
    this.samples += 1;
    return this.availableBytes;
  }

  #drain(): boolean {
    this.drains += 1;
    const freed = this.pooledBytes;
    this.pooledBytes = 0;
    this.availableBytes += freed;
    return freed > 0;
  }

  /** Lets VMs in that are `creating` from then on. @returns their ids. */
  start(wanted: Partial<Wanted> = {}, deadline = Deadline.after(5_000)): Promise<string[]> {
    const whole = { memoryBytes: SMALL, ...wanted };
    return this.admission.admit(whole, deadline, () =>
      Array.from({ length: whole.count ?? 1 }, () => this.add("creating", whole.memoryBytes)),
    );
  }

  add(state: Vm["state"], memoryBytes = SMALL): string {
    const id = `vm_${this.vms.length}`;
    this.vms.push({ ...sampleVm, id, state, memoryBytes, finishedAt: null });
    return id;
  }

  change(id: string, change: Partial<Vm>): void {
    const index = this.vms.findIndex((vm) => vm.id === id);
    this.vms.splice(index, 1, { ...sampleVm, ...this.vms[index], ...change });
  }

  /** Counters of admissions. */
  get counted(): Record<string, number> {
    const samples = this.metrics.samples().filter(({ name }) => name.startsWith("mayfly_admissions"));
    return Object.fromEntries(samples.map(({ labels, value }) => [labels["code"] ?? "queued", value]));
  }
}

/** A host whose VMs may be so many of the small ones. */
function hostFor(vms: number): FakeHost {
  return new FakeHost((vms * WHOLE) / (8 * GIB));
}

describe("the worst case", () => {
  test("is refused beyond the limit, with all numbers, and nothing is taken", async () => {
    const host = hostFor(2.5);
    await host.start();
    await host.start();
    const error = await rejection(host.start());
    expect(error).toMatchObject({ code: "memory_overcommitted", kind: "resource_exhausted" });
    expect(error.message).toBe(
      "Cannot start a VM with 128 MiB: with the 2 VMs that run it could take up to 624 MiB, and 520 MiB is the limit, " +
        "0.0634765625 times the 8.0 GiB that this host has for VMs; suspend or remove some, or allow more (mayfly daemon --overcommit)",
    );
    const { committedBytes, limitBytes, wantedBytes, vms } = error.details;
    expect({ committedBytes, limitBytes, wantedBytes, vms }).toEqual({
      committedBytes: 2 * WHOLE,
      limitBytes: 2.5 * WHOLE,
      wantedBytes: WHOLE,
      vms: 2,
    });
    expect(host.vms).toHaveLength(2);
    expect(host.counted).toEqual({ queued: 0, memory_overcommitted: 1 });
    expect(host.admission.describe()).toMatchObject({ committedBytes: 2 * WHOLE, limitBytes: 2.5 * WHOLE });
  });

  test("may be reached to the byte, and is free again when a VM has ended", async () => {
    const host = hostFor(2);
    await host.start();
    const [last = ""] = await host.start();
    expect((await rejection(host.start())).code).toBe("memory_overcommitted");
    host.change(last, { finishedAt: "now", state: "exited" });
    await host.start();
  });

  test("counts a fork of several as several: all or none", async () => {
    const host = hostFor(4);
    await host.start();
    const error = await rejection(host.start({ count: 4 }));
    expect(error).toMatchObject({ code: "memory_overcommitted", details: { wantedBytes: 4 * WHOLE, vms: 1 } });
    expect(error.message).toStartWith("Cannot start 4 VMs with 128 MiB each: with the VM that runs it could");
    expect(host.vms).toHaveLength(1);
    expect(await host.start({ count: 3 })).toHaveLength(3);
  });

  test("counts the machine that a VM gets, which is of the next larger shape, and QEMU's own by accelerator", async () => {
    const host = new FakeHost();
    host.add("running", 300 * MIB);
    expect(host.admission.describe().committedBytes).toBe((512 + 16 + 64) * MIB);
  });

  test("counts by the accelerator of now, which another QEMU or kernel in force may change", async () => {
    const host = new FakeHost();
    host.machine.accelerator = "kvm";
    host.add("running", 300 * MIB);
    expect(host.admission.describe().committedBytes).toBe((512 + 16) * MIB);
    host.machine.accelerator = "tcg";
    host.nowMs += 1000;
    expect(host.admission.describe().committedBytes).toBe((512 + 16 + 64) * MIB);
  });

  test("counts VMs that are paused, stopping or between two QEMUs; not those that are suspended or have ended", async () => {
    const host = new FakeHost();
    for (const state of ["running", "stopping", "restarting", "creating"] as const) host.add(state);
    host.add("suspended");
    host.change(host.add("exited"), { finishedAt: "now" });
    expect(host.admission.describe().committedBytes).toBe(4 * WHOLE);
  });

  test("lets a suspended VM back only where it fits, and counts it while it comes", async () => {
    const host = hostFor(2);
    const suspended = { id: host.add("suspended"), name: "web", memoryBytes: SMALL };
    await host.start();
    const returned = Promise.withResolvers<string>();
    const coming = host.admission.comeBack(suspended, Deadline.after(5_000), () => returned.promise);
    expect((await rejection(host.start())).code).toBe("memory_overcommitted");
    returned.resolve("back");
    expect(await coming).toBe("back");
    expect(host.admission.describe().committedBytes).toBe(WHOLE);
    await host.start();
    const refused = await rejection(
      host.admission.comeBack(suspended, Deadline.after(5_000), async () => expect.unreachable()),
    );
    expect(refused.message).toStartWith("Cannot resume VM web: with the 2 VMs that run");
  });

  test("two at once do not both get the last place", async () => {
    const host = hostFor(1);
    const outcomes = await Promise.allSettled([host.start(), host.start()]);
    expect(outcomes.map(({ status }) => status)).toEqual(["fulfilled", "rejected"]);
  });

  test("what recording the VM throws is thrown, and takes no place", async () => {
    const host = hostFor(1);
    const taken = () => {
      throw new Error("name in use");
    };
    const failed = host.admission.admit({ memoryBytes: SMALL }, Deadline.after(5_000), taken);
    expect(await failed.catch(String)).toBe("Error: name in use");
    await host.start();
  });
});

describe("the host's memory now", () => {
  /** So much more than the reserve is available. */
  const withSpare = (mib: number) => {
    const host = new FakeHost();
    host.availableBytes = (512 + mib) * MIB;
    return host;
  };

  test("is looked at once in 100 ms, less what starts under way will take of it", async () => {
    const host = withSpare(3 * 16);
    for (let n = 0; n < 3; n++) await host.start();
    expect([host.samples, host.drains]).toEqual([1, 0]);
    const error = await rejection(host.start());
    expect(error).toMatchObject({ code: "host_memory_low", kind: "resource_exhausted" });
    expect(error.message).toBe(
      "Cannot start a VM with 128 MiB: the host has 560 MiB available, 48 MiB of them for VMs that are being started, " +
        "it takes 16 MiB, and 512 MiB must be left; suspend or remove VMs, or end other programs",
    );
    expect(error.details).toMatchObject({ reserveBytes: 512 * MIB, promisedBytes: 48 * MIB, wantedBytes: 16 * MIB });
    expect(host.vms).toHaveLength(3);
    expect(host.counted).toEqual({ queued: 1, host_memory_low: 1 });
    for (const { id } of [...host.vms]) host.change(id, { state: "running" });
    host.nowMs = 100;
    await host.start();
  });

  test("is given back by pools first, and what can do without follows until there is enough", async () => {
    const host = withSpare(0);
    host.pooledBytes = 2 * MIB;
    const order: number[] = [];
    host.admission.relieve = async () => {
      order.push(host.drains);
      host.availableBytes += 5 * MIB;
      return true;
    };
    await host.start();
    expect(order).toEqual([2, 3, 4]);
    expect(host.counted).toEqual({ queued: 1 });
  });

  test("is waited for in order: a small one does not overtake", async () => {
    const host = withSpare(0);
    const turns: PromiseWithResolvers<boolean>[] = [];
    host.admission.relieve = () => {
      const turn = Promise.withResolvers<boolean>();
      turns.push(turn);
      return turn.promise;
    };
    const done: string[] = [];
    const queue = [4, 1, 1].map((count, index) => host.start({ count }).then(() => done.push(`${index}: ${count}`)));
    await Bun.sleep(0);
    host.availableBytes += 2 * 16 * MIB;
    // There would be enough for it, if nobody waited.
    queue.push(host.start().then(() => done.push("late")));
    turns[0]?.resolve(true);
    await Bun.sleep(0);
    expect([done, turns.length]).toEqual([[], 2]);
    host.availableBytes += 5 * 16 * MIB;
    turns[1]?.resolve(true);
    await Promise.all(queue);
    expect(done).toEqual(["0: 4", "1: 1", "2: 1", "late"]);
  });

  test("is waited for until the deadline; what was begun goes on and is the next one's", async () => {
    const host = withSpare(0);
    const relief = Promise.withResolvers<boolean>();
    let reliefs = 0;
    host.admission.relieve = () => {
      reliefs += 1;
      return relief.promise;
    };
    const [first, second] = [host.start({}, Deadline.after(5)), host.start({}, Deadline.after(10))];
    const third = host.start();
    expect((await rejection(first)).code).toBe("host_memory_low");
    expect((await rejection(second)).code).toBe("host_memory_low");
    expect(host.vms).toEqual([]);
    host.availableBytes += 16 * MIB;
    relief.resolve(true);
    expect(await third).toHaveLength(1);
    expect(reliefs).toBe(1);
  });

  test("whoever cancels leaves the queue, the first of it as well as one behind", async () => {
    const host = withSpare(0);
    const relief = Promise.withResolvers<boolean>();
    host.admission.relieve = () => relief.promise;
    const abort = [new AbortController(), new AbortController()];
    const waiting = abort.map(({ signal }) => host.start({}, Deadline.after(5_000, signal)));
    const last = host.start();
    abort[1]?.abort();
    abort[0]?.abort();
    for (const start of waiting) expect((await rejection(start)).code).toBe("cancelled");
    expect(host.vms).toEqual([]);
    host.availableBytes += 16 * MIB;
    relief.resolve(true);
    expect(await last).toHaveLength(1);
    expect(host.counted).toEqual({ queued: 3 });
  });

  test("one that waits is refused when others have taken the last place meanwhile", async () => {
    const host = hostFor(1);
    host.availableBytes = 512 * MIB;
    host.admission.relieve = async () => {
      host.availableBytes += GIB;
      host.add("restarting");
      return true;
    };
    expect((await rejection(host.start())).code).toBe("memory_overcommitted");
  });

  test("something that cannot give memory back is like nothing that could", async () => {
    const host = withSpare(0);
    host.admission.relieve = async () => {
      throw new Error("disk full");
    };
    const error = await rejection(host.start());
    expect(error.code).toBe("host_memory_low");
    expect(String(error.cause)).toBe("Error: disk full");
  });
});
