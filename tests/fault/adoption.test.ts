/** VMs that do not answer a daemon that is started: they may be slow, and are had when they do. */
import { afterEach, beforeAll, beforeEach, expect, test } from "bun:test";
import { COUNTER, goOnOneByOne, numbersOf } from "../support/counting.ts";
import { soon, TestEngine } from "../support/engine.ts";
import { describeVms, readProc } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";
import { rejection } from "../support/fake-peer.ts";

/** Longer than a daemon's start waits for one VM. */
const SHORTEST_MS = 6_000;

describeVms("a VM that stands still while a daemon starts", () => {
  let vms: TestEngine;
  let pid: number;

  beforeAll(async () => {
    vms = await TestEngine.open();
  }, 90_000);

  beforeEach(async () => {
    const { pid: qemu } = await vms.start({ name: "slow", command: COUNTER });
    if (qemu === null) throw new Error("it has no QEMU");
    pid = qemu;
    await numbersOf(vms, "slow", 3);
    process.kill(pid, "SIGSTOP");
  });

  afterEach(async () => {
    await vms.removeAll();
    expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
    await vms[Symbol.asyncDispose]();
    vms = await TestEngine.open();
  });

  test("is had when it answers, by who has waited for it as well", async () => {
    vms = await vms.reopen();
    expect(vms.engine.getVm("slow")).toMatchObject({ state: "running", pid });
    await vms.start({ name: "other" });
    expect(await vms.shell("other", "echo well")).toBe("well");
    const waiting = vms.shell("slow", "echo back");
    const refused = await rejection(vms.engine.refreshVm("slow", soon()));
    expect(refused.code).toBe("vm_not_running");
    expect(refused.message).toContain("has not answered yet");
    process.kill(pid, "SIGCONT");
    expect(await waiting).toBe("back");
    expect(goOnOneByOne(await numbersOf(vms, "slow", 50))).toBe(true);
    expect(vms.engine.getVm("slow")).toMatchObject({ state: "running", pid });
  }, 60_000);

  test("is left alone by a daemon that ends before it has answered", async () => {
    vms = await vms.reopen();
    vms = await vms.reopen();
    process.kill(pid, "SIGCONT");
    expect(await vms.shell("slow", "echo back")).toBe("back");
    expect(goOnOneByOne(await numbersOf(vms, "slow", 50))).toBe(true);
    expect(vms.engine.getVm("slow").pid).toBe(pid);
  }, 60_000);

  test("ends when it is told to, and nobody waits for it then", async () => {
    vms = await vms.reopen();
    const ended = vms.engine.waitVm("slow", AbortSignal.timeout(10_000));
    const startedMs = performance.now();
    await vms.engine.killVm("slow", 9, soon());
    expect((await ended).state).toBe("exited");
    expect(performance.now() - startedMs).toBeLessThan(5_000);
    expect(readProc(`/proc/${pid}/cmdline`)).toBe("");
  }, 60_000);

  test("ends when it is told to, also one that is removed then", async () => {
    const { id, pid: qemu } = await vms.start({ autoRemove: true });
    process.kill(qemu ?? 0, "SIGSTOP");
    vms = await vms.reopen();
    expect(await vms.engine.killVm(id, 9, soon())).toMatchObject({ id, state: "exited", pid: null });
    expect(vms.engine.listVms().map(({ name }) => name)).toEqual(["slow"]);
    expect(readProc(`/proc/${qemu}/cmdline`)).toBe("");
  }, 60_000);

  test("is removed by force", async () => {
    vms = await vms.reopen();
    expect((await rejection(vms.engine.removeVm("slow", { force: false, deadline: soon() }))).code).toBe("vm_running");
    await vms.remove("slow");
    expect(vms.engine.listVms()).toEqual([]);
    expect(readProc(`/proc/${pid}/cmdline`)).toBe("");
  }, 60_000);

  test("is given up after its time", async () => {
    vms = await vms.reopen({ adoptionMs: SHORTEST_MS });
    const ended = await vms.engine.waitVm("slow", AbortSignal.timeout(30_000));
    expect(ended).toMatchObject({ state: "failed", error: { code: "deadline_exceeded" } });
    expect(readProc(`/proc/${pid}/cmdline`)).toBe("");
  }, 60_000);

  test("that is killed instead of answering has failed", async () => {
    vms = await vms.reopen();
    process.kill(pid, "SIGKILL");
    const ended = await vms.engine.waitVm("slow", AbortSignal.timeout(10_000));
    expect(ended).toMatchObject({ state: "failed", error: { code: "qemu_exited" } });
  }, 60_000);
});
