/** The life of VMs: names, states, waiting, signals, stopping, removing, many at once. */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import type { Event } from "../../src/contract/api.ts";
import { soon, TestEngine } from "../support/engine.ts";
import { describeVms, readProc } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";
import { rejection } from "../support/fake-peer.ts";

describeVms("a VM", () => {
  let vms: TestEngine;

  beforeAll(async () => {
    vms = await TestEngine.open();
    await vms.run(["true"]);
    vms.markDescriptors();
  });
  afterAll(() => vms?.[Symbol.asyncDispose]());
  afterEach(async () => {
    await vms.removeAll();
    expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
  });

  const background = async (script: string, request = {}) => {
    const whole = { command: ["sh", "-c", script], ...request };
    return (await vms.engine.createVm(whole, { deadline: soon() })).vm;
  };
  const ended = (ref: string) => vms.engine.waitVm(ref, AbortSignal.timeout(30_000));

  test("is found by its id, its name and a beginning of its id; a name is taken once", async () => {
    const vm = await vms.start({ name: "the-name", labels: { key: "value" } });
    for (const ref of [vm.id, "the-name", vm.id.slice(3), vm.id.slice(13, 25)]) {
      expect(vms.engine.getVm(ref).id).toBe(vm.id);
    }
    expect(vms.engine.getVm("the-name").labels).toEqual({ key: "value" });
    expect((await rejection(vms.start({ name: "the-name" }))).code).toBe("name_in_use");
    expect(() => vms.engine.getVm("another")).toThrow("another");
  });

  test("tells of its states as they change", async () => {
    const events: Event[] = [];
    const stop = vms.engine.subscribe((event) => events.push(event));
    const vm = await background("exit 2", { name: "told" });
    await ended(vm.id);
    await vms.remove(vm.id);
    stop();
    expect(events.filter(({ id }) => id === vm.id).map(({ type, name }) => `${type} ${name}`)).toEqual([
      "vm.running told",
      "vm.exited told",
      "vm.removed told",
    ]);
    expect(events.find(({ type }) => type === "vm.exited")?.attributes["exitCode"]).toBe(2);
  });

  test("ends with its main process, and everything that this left", async () => {
    const vm = await background("(setsid sleep 1000 &) ; exit 0");
    expect((await ended(vm.id)).state).toBe("exited");
    expect(readProc(`/proc/${vm.pid}/status`)).toBe("");
    expect((await rejection(vms.exec(vm.id, ["true"]))).code).toBe("vm_not_running");
  });

  test("is killed by signals to its main process", async () => {
    const vm = await background("trap 'exit 5' TERM; while :; do sleep 0.05; done");
    await vms.exec(vm.id, ["sleep", "0.2"]);
    await vms.engine.killVm(vm.id, 15, soon());
    expect((await ended(vm.id)).exitCode).toBe(5);
    const other = await background("sleep 1000");
    await vms.engine.killVm(other.id, 9, soon());
    expect(await ended(other.id)).toMatchObject({ state: "exited", exitCode: 137, exitSignal: 9 });
  });

  test("is stopped, in time by force", async () => {
    const willing = await background("trap 'exit 0' TERM; while :; do sleep 0.05; done");
    await vms.exec(willing.id, ["sleep", "0.2"]);
    expect(await vms.engine.stopVm(willing.id, 20_000, soon())).toMatchObject({ state: "exited", exitCode: 0 });
    const unwilling = await background("trap '' TERM; while :; do sleep 0.05; done");
    await vms.exec(unwilling.id, ["sleep", "0.2"]);
    expect(await vms.engine.stopVm(unwilling.id, 100, soon())).toMatchObject({ state: "exited", exitCode: 137 });
    const idle = await vms.start();
    expect((await vms.engine.stopVm(idle.id, 100, soon())).state).toBe("exited");
  });

  test("that runs is removed only by force", async () => {
    const vm = await vms.start();
    const error = await rejection(vms.engine.removeVm(vm.id, { force: false, deadline: soon() }));
    expect(error.code).toBe("vm_running");
    await vms.remove(vm.id);
    expect(vms.engine.listVms()).toEqual([]);
  });

  test("removes itself when it was asked to", async () => {
    const vm = await background("exit 1", { autoRemove: true });
    expect((await ended(vm.id)).exitCode).toBe(1);
    expect(vms.engine.listVms()).toEqual([]);
  });

  test("that cannot be started is gone, and who waits for it is told", async () => {
    const abort = new AbortController();
    const starting = vms.engine.createVm({ name: "doomed", command: ["no-such-program"] }, { deadline: soon() });
    const failed = rejection(starting);
    while (vms.engine.listVms().length === 0) await Bun.sleep(1);
    const waiting = vms.engine.waitVm("doomed", abort.signal);
    expect((await failed).code).toBe("command_not_found");
    expect(await waiting).toMatchObject({ state: "failed", error: { code: "command_not_found" } });
    expect(vms.engine.listVms()).toEqual([]);
  });

  test("tells what it uses", async () => {
    const vm = await vms.start();
    await vms.shell(vm.id, "dd if=/dev/zero of=/tmp/x bs=1M count=16 2>/dev/null");
    const stats = await vms.engine.statsVm(vm.id, soon());
    expect(stats.guestUniqueMemoryBytes).toBeGreaterThan(16 << 20);
    expect(stats.uniqueMemoryBytes).toBeGreaterThan(stats.guestUniqueMemoryBytes);
    expect(stats.uniqueMemoryBytes).toBeLessThan(100 << 20);
    expect(stats.cpuUs).toBeGreaterThan(0);
    expect(stats.guest?.memoryTotalBytes).toBeGreaterThan(80 << 20);
    expect(stats.guest?.memoryTotalBytes).toBeLessThanOrEqual(128 << 20);
    expect(stats.guest?.uptimeMs).toBeGreaterThan(100);
    expect(stats.guest?.workloadPids).toBe(0);
  });

  test("shows its console, as often as it is asked for", async () => {
    const vm = await vms.start();
    await vms.shell(vm.id, "echo 'a line for the console' > /dev/console");
    expect(await vms.engine.console(vm.id, soon())).toContain("a line for the console");
    await vms.shell(vm.id, "echo 'and another' > /dev/console");
    expect(await vms.engine.console(vm.id, soon())).toMatch(/a line for the console\r?\nand another/);
  });

  test("whose guest ends by itself has failed, and says so", async () => {
    const vm = await vms.start();
    await vms.exec(vm.id, ["sh", "-c", "reboot -f"]).catch(() => undefined);
    const end = await ended(vm.id);
    expect({ state: end.state, code: end.error?.code }).toEqual({ state: "failed", code: "qemu_exited" });
  });

  test("is one of twenty that are asked for at once", async () => {
    const script = "cat /etc/machine-id; hostname";
    const made = await Promise.all(
      Array.from({ length: 20 }, (_, index) => vms.run(["sh", "-c", `${script}; exit ${index}`])),
    );
    expect(made.map(({ exitCode }) => exitCode)).toEqual(Array.from({ length: 20 }, (_, index) => index));
    expect(new Set(made.map(({ stdout }) => stdout.split("\n")[0])).size).toBe(20);
    expect(new Set(made.map(({ vm }) => vm.name)).size).toBe(20);
  }, 60_000);
});
