/** VMs with an idle policy, over real QEMU: they stand still while nobody uses them, and nobody who uses them can tell but by the clock. */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import type { CreateVmRequest, Vm } from "../../src/contract/api.ts";
import { Deadline, pause } from "../../src/sys/deadline.ts";
import { hostMemoryBytes } from "../../src/sys/host.ts";
import { cpuTimeUsOf } from "../../src/sys/process.ts";
import { soon, TestEngine } from "../support/engine.ts";
import { describeVms } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";

const PAUSE = { policy: "pause", pauseAfterMs: 300 } as const;
/** Prints the wall clock and the monotonic clock, in seconds. */
const CLOCKS = "date +%s; cut -d' ' -f1 /proc/uptime";

describeVms("idle VMs", () => {
  let vms: TestEngine;
  beforeAll(async () => {
    vms = await TestEngine.open();
  }, 90_000);
  afterAll(() => vms?.[Symbol.asyncDispose]());
  afterEach(async () => {
    for (const vm of vms.engine.listVms()) await vms.remove(vm.id);
    expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
  });

  /** Resolves when a VM is told to have done something. */
  const until = (type: string, id: string): Promise<void> => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const end = vms.engine.subscribe((event) => {
      if (event.type === type && event.id === id) resolve();
    });
    return soon().race(promise, `${type} of ${id}`).finally(end);
  };
  const started = async (request: Partial<CreateVmRequest>): Promise<Vm> => {
    const { vm } = await vms.engine.createVm({ idle: PAUSE, ...request }, { deadline: soon() });
    return vm;
  };
  const paused = async (request: Partial<CreateVmRequest> = {}): Promise<Vm> => {
    const vm = await started(request);
    if (vms.engine.getVm(vm.id).pausedAt === undefined) await until("vm.paused", vm.id);
    return vms.engine.getVm(vm.id);
  };
  const clocks = async (ref: string) => {
    const [wall = "", up = ""] = (await vms.shell(ref, CLOCKS)).split("\n");
    return { wallMs: Number(wall) * 1000, upMs: Number(up) * 1000 };
  };

  test("take no CPU at all, and go on at the first byte with the right time and without a jump", async () => {
    const vm = await started({ name: "resting" });
    const before = await clocks("resting");
    await until("vm.paused", vm.id);
    expect(vms.engine.getVm("resting").pausedAt).toBeDefined();
    const ticks = cpuTimeUsOf(vm.pid ?? 0);
    await pause(3000);
    expect(cpuTimeUsOf(vm.pid ?? 0)).toBe(ticks);
    const after = await clocks("resting");
    expect(Math.abs(after.wallMs - Date.now())).toBeLessThan(2500);
    expect(after.wallMs - before.wallMs).toBeGreaterThanOrEqual(3000);
    // Of the time that it stood still its monotonic clock knows nothing.
    expect(after.upMs - before.upMs).toBeLessThan(after.wallMs - before.wallMs - 1900);
    expect(vms.engine.getVm("resting").pausedAt).toBeUndefined();
    await until("vm.paused", vm.id);
  });

  test("are not woken up by those who only look, and say so", async () => {
    const vm = await paused();
    const stats = await vms.engine.statsVm(vm.id, soon());
    expect(stats).toMatchObject({ guest: null, guestUsedMemoryBytes: null });
    expect(stats.uniqueMemoryBytes).toBeGreaterThan(0);
    expect(vms.engine.listVms()[0]?.pausedAt).toBe(vm.pausedAt ?? "");
    await vms.engine.console(vm.id, soon());
    expect(vms.engine.getVm(vm.id).pausedAt).toBe(vm.pausedAt ?? "");
  });

  test("run while a command does, a client is attached, or they compute", async () => {
    const vm = await started({ name: "busy" });
    expect(await vms.shell("busy", "sleep 2; echo done")).toBe("done");
    await until("vm.paused", vm.id);
    const computing = await started({ name: "computing", command: ["sh", "-c", "while :; do :; done"] });
    const foreground = vms.run(["sh", "-c", "sleep 2; echo done"], { idle: PAUSE });
    expect((await foreground).stdout).toBe("done\n");
    expect(vms.engine.getVm(computing.id).pausedAt).toBeUndefined();
  });

  test("answer a request that a program takes its time for, then stand still with the connection open", async () => {
    const script = "nc -l -p 80 -e sh -c 'while read -r n; do sleep 1.5; echo $n; done'";
    const vm = await paused({ name: "slow", command: ["sh", "-c", script], ports: [{ hostPort: 0, guestPort: 80 }] });
    const { hostPort } = vms.engine.getVm(vm.id).ports[0] ?? { hostPort: 0 };
    const answers: string[] = [];
    let answered = Promise.withResolvers<void>();
    const socket = await Bun.connect({
      hostname: "127.0.0.1",
      port: hostPort,
      socket: {
        data: (_socket, bytes) => {
          answers.push(bytes.toString().trim());
          answered.resolve();
        },
      },
    });
    try {
      for (const word of ["one", "two"]) {
        answered = Promise.withResolvers();
        socket.write(`${word}\n`);
        await soon().race(answered.promise, `the answer to ${word}`);
        if (vms.engine.getVm(vm.id).pausedAt === undefined) await until("vm.paused", vm.id);
      }
      expect(answers).toEqual(["one", "two"]);
    } finally {
      socket.end();
    }
  });

  test("are forked, checkpointed, stopped and killed as others are; children have the policy", async () => {
    await paused({ name: "parent", command: ["sh", "-c", "trap 'exit 5' TERM; sleep 10000 & wait"] });
    const { vmIds } = await vms.engine.snapshots.fork("parent", { namePrefix: "child" }, soon());
    const child = vms.engine.getVm(vmIds[0] ?? "");
    expect(child.idle).toMatchObject({ policy: "pause", pauseAfterMs: 300 });
    if (child.pausedAt === undefined) await until("vm.paused", child.id);
    const snapshot = await vms.engine.snapshots.checkpoint("child", {}, soon());
    await vms.engine.killVm("child", 9, soon());
    expect((await vms.engine.waitVm("child", AbortSignal.timeout(20_000))).pausedAt).toBeUndefined();
    const parent = vms.engine.getVm("parent");
    if (parent.pausedAt === undefined) await until("vm.paused", parent.id);
    await vms.engine.killVm("parent", 15, soon());
    expect(await vms.engine.waitVm("parent", AbortSignal.timeout(20_000))).toMatchObject({ exitCode: 5 });
    await vms.engine.snapshots.remove(snapshot.id);
  });

  test("are suspended when it is time, not while a connection is open, and come back paused-to-be", async () => {
    const idle = { policy: "suspend", pauseAfterMs: 200, suspendAfterMs: 1500 } as const;
    const vm = await started({ name: "away", idle, command: ["sh", "-c", "echo $$ >/tmp/pid; exec sleep 10000"] });
    await until("vm.suspended", vm.id);
    expect(vms.engine.getVm("away")).toMatchObject({ state: "suspended", pid: null });
    expect(vms.engine.getVm("away").pausedAt).toBeUndefined();
    expect(await vms.shell("away", "cat /tmp/pid")).not.toBe("");
    expect(vms.engine.getVm("away").state).toBe("running");
    await until("vm.suspended", vm.id);
  });

  test("give back what their guest has freed, by themselves, and stand still again", async () => {
    const idle = { policy: "pause", pauseAfterMs: 200, refreshAfterMs: 1000 } as const;
    const vm = await started({ name: "large", idle, memoryBytes: 128 << 20 });
    const template = vms.engine.getTemplate(vm.templateId);
    await vms.shell("large", "dd if=/dev/urandom of=/tmp/junk bs=1M count=48 2>/dev/null; rm /tmp/junk");
    const grown = (await vms.engine.statsVm("large", soon())).guestUniqueMemoryBytes;
    expect(grown).toBeGreaterThan(48 << 20);
    await until("vm.refreshed", vm.id);
    if (vms.engine.getVm("large").pausedAt === undefined) await until("vm.paused", vm.id);
    expect((await vms.engine.statsVm("large", soon())).guestUniqueMemoryBytes).toBeLessThan(grown / 3);
    expect((await vms.engine.verifyTemplate(template.id, soon())).ok).toBe(true);
  });

  test("are found by the next daemon, go on, and stand still again", async () => {
    const vm = await paused({ name: "left", command: ["sh", "-c", "echo hi; exec sleep 10000"] });
    vms = await vms.reopen();
    expect(vms.engine.getVm("left")).toMatchObject({ state: "running", pid: vm.pid, idle: { policy: "pause" } });
    if (vms.engine.getVm("left").pausedAt === undefined) await until("vm.paused", vm.id);
    expect(await vms.shell("left", "echo on")).toBe("on");
  });

  test("are suspended at once when the host runs short of memory, and come back when it does not", async () => {
    const idle = { policy: "suspend", pauseAfterMs: 200 } as const;
    const vm = await paused({ name: "short", idle, command: ["sleep", "10000"] });
    vms = await vms.reopen({ memoryReserveBytes: 2 * hostMemoryBytes() });
    if (vms.engine.getVm("short").state !== "suspended") await until("vm.suspended", vm.id);
    vms = await vms.reopen();
    expect(await vms.shell("short", "echo on")).toBe("on");
  });

  test("keep their time limit and their health", async () => {
    const test = ["CMD-SHELL", "echo x >>/tmp/checks"];
    const health = { test, intervalMs: 1000, startPeriodMs: 0 };
    const vm = await paused({ name: "limited", command: ["sleep", "10000"], health, timeoutMs: 6000 });
    const checks = () => readFileSync(`/proc/${vm.pid}/stat`, "latin1").split(" ").slice(13, 15).join();
    await pause(2500);
    const before = checks();
    expect(vms.engine.getVm("limited").pausedAt).toBeDefined();
    await pause(1500);
    expect(checks()).toBe(before);
    expect(await vms.engine.waitVm("limited", AbortSignal.timeout(20_000))).toMatchObject({ exitCode: 124 });
  });

  test("that are many go on within some milliseconds", async () => {
    const ids = (await Promise.all(Array.from({ length: 5 }, () => paused()))).map(({ id }) => id);
    for (const id of ids) expect(await vms.shell(id, "echo on")).toBe("on");
    const { histograms } = vms.engine.metrics();
    const continued = histograms.find(({ name }) => name === "mayfly_continue_seconds");
    expect(continued?.count).toBeGreaterThanOrEqual(5);
  });

  test("a burst of requests to one that stands still is answered whole", async () => {
    const vm = await paused();
    const limit = Deadline.after(30_000);
    const answers = await limit.race(
      Promise.all(Array.from({ length: 20 }, (_, index) => vms.shell(vm.id, `echo ${index}`))),
      "all answers",
    );
    expect(answers).toEqual(Array.from({ length: 20 }, (_, index) => String(index)));
  });
});
