/** Restart policies: a main process that is started again in its VM, a QEMU that is replaced, and who ends it. */

import { Database } from "bun:sqlite";
import { afterEach, expect, test } from "bun:test";
import { renameSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { CreateVmRequest, Event, Vm } from "../../src/contract/api.ts";
import { MayflyError } from "../../src/contract/errors.ts";
import { Output, soon, TestEngine } from "../support/engine.ts";
import { describeVms, readProc } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";

const SIGKILL = 9;
const SIGTERM = 15;
const QUICK = { restartPausesMs: { first: 1, longest: 4 } };
/** Nothing in these tests takes so long: it ends by what the test does. */
const SLOW = { restartPausesMs: { first: 600_000, longest: 600_000 } };

describeVms("a restart policy", () => {
  let vms: TestEngine;
  const events: Event[] = [];
  let watchers: (() => void)[] = [];

  const open = async (options: Parameters<typeof TestEngine.open>[0] = {}) => {
    vms = await TestEngine.open(options);
    listen();
  };
  const reopen = async (options: Parameters<typeof TestEngine.open>[0] = {}) => {
    vms = await vms.reopen(options);
    listen();
  };
  const listen = () =>
    vms.engine.subscribe((event) => {
      events.push(event);
      for (const wake of watchers) wake();
    });

  afterEach(async () => {
    await vms.removeAll();
    expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
    await vms[Symbol.asyncDispose]();
    events.length = 0;
    watchers = [];
  });

  const start = async (script: string, request: Partial<CreateVmRequest> = {}): Promise<Vm> => {
    const whole: CreateVmRequest = { command: ["sh", "-c", script], restart: { name: "always" }, ...request };
    return (await vms.engine.createVm(whole, { deadline: soon() })).vm;
  };
  const get = (vm: Vm) => vms.engine.getVm(vm.id);
  const ended = (vm: Vm) => vms.engine.waitVm(vm.id, AbortSignal.timeout(30_000));
  /** Waits until a VM is as it is to be: each change of a state comes with an event. */
  const until = async (vm: Vm, is: (vm: Vm) => boolean): Promise<Vm> => {
    const deadline = soon(30_000);
    while (!is(get(vm))) {
      const { promise, resolve } = Promise.withResolvers<void>();
      watchers.push(resolve);
      await deadline.race(promise, `a change of ${JSON.stringify(get(vm))}`);
    }
    return get(vm);
  };
  const restarting = (vm: Vm) => until(vm, ({ state }) => state === "restarting");
  const logs = async (vm: Vm) => {
    const output = new Output();
    const signal = new AbortController().signal;
    for await (const { channel, chunk } of vms.engine.logs(vm.id, { follow: false, signal })) {
      output.output(channel, chunk);
    }
    return output.stdout;
  };
  const refused = async (work: Promise<unknown> | (() => unknown)) => {
    try {
      await (typeof work === "function" ? work() : work);
    } catch (error) {
      if (error instanceof MayflyError) return error.code;
      throw error;
    }
    return "done";
  };

  test("starts a main process again in the same VM, which has what the one before has left", async () => {
    await open(QUICK);
    const script =
      "echo run >> /tmp/runs; wc -l < /tmp/runs; [ $(wc -l < /tmp/runs) -ge 3 ] && exec sleep 1000; exit 4";
    const vm = await start(script);
    const running = await until(vm, ({ state, restartCount }) => state === "running" && restartCount === 2);
    expect(running).toMatchObject({ pid: vm.pid, exitCode: null, exitSignal: null, error: null, finishedAt: null });
    expect(running.startedAt).not.toBe(vm.startedAt);
    const output = new Output();
    vms.engine.attach(vm.id, output, { logs: true });
    await output.has("1\n2\n3\n");
    const told = events
      .filter(({ id }) => id === vm.id)
      .map(({ type, attributes }) => [type, attributes["restartCount"]]);
    const again = (count: number) => [
      ["vm.restarting", count],
      ["vm.running", count],
    ];
    expect(told).toEqual([["vm.running", undefined], ...again(1), ...again(2)]);
    expect(events.find(({ type }) => type === "vm.restarting")?.attributes).toMatchObject({
      cause: "exit",
      exitCode: 4,
    });
    expect(await vms.shell(vm.id, "cat /tmp/runs | wc -l")).toBe("3");
  });

  test("gives up with on-failure after so many, and after a success", async () => {
    await open(QUICK);
    const failing = await start("echo here; exit 5", { restart: { name: "on-failure", maximumRetries: 3 } });
    expect(await ended(failing)).toMatchObject({ state: "exited", exitCode: 5, restartCount: 3, pid: null });
    expect(await logs(failing)).toBe("here\n".repeat(4));
    const script = "[ -e /tmp/once ] && exit 0; touch /tmp/once; kill -9 $$";
    const second = await start(script, { restart: { name: "on-failure" } });
    expect(await ended(second)).toMatchObject({ state: "exited", exitCode: 0, exitSignal: 0, restartCount: 1 });
  });

  test("leaves nothing of twenty quick exits: no object, no group, no descriptor", async () => {
    await open(QUICK);
    const vm = await start("exit 1", {
      restart: { name: "on-failure", maximumRetries: 20 },
      command: ["sh", "-c", "exit 1"],
    });
    vms.markDescriptors();
    expect((await ended(vm)).restartCount).toBe(20);
    await vms.remove(vm.id);
    const script = "[ $(echo x >> /tmp/n; wc -l < /tmp/n) -gt 100 ] && exec sleep 1000; exit 1";
    const many = await start(script);
    // More than the agent has places for objects.
    await until(many, ({ state, restartCount }) => state === "running" && restartCount === 100);
    const groups = "ls -d /sys/fs/cgroup/workload/[0-9]* | wc -l";
    expect(Number(await vms.shell(many.id, groups))).toBeLessThan(8);
    await vms.remove(many.id);
    expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
  }, 60_000);

  test("ends a client of the old process with its exit code, and lets it join the new one", async () => {
    await open(QUICK);
    const output = new Output();
    const command = ["sh", "-c", "read line; echo got $line; exit 6"];
    const request: CreateVmRequest = { command, stdin: true, restart: { name: "always" } };
    const { vm, process } = await vms.engine.createVm(request, { deadline: soon(), sink: output });
    await process?.write(Buffer.from("one\n"));
    expect(await process?.exited).toEqual({ exitCode: 6, signal: 0 });
    expect(output.stdout).toBe("got one\n");
    await until(vm, ({ state, restartCount }) => state === "running" && restartCount === 1);
    const second = new Output();
    const session = vms.engine.attach(vm.id, second, { logs: false });
    await session.write(Buffer.from("two\n"));
    expect(await session.exited).toEqual({ exitCode: 6, signal: 0 });
    expect(second.stdout).toBe("got two\n");
    expect(output.stdout).toBe("got one\n");
  });

  test("gives those who follow the logs all runs, until the VM has ended", async () => {
    await open(QUICK);
    const vm = await start("echo line", {
      restart: { name: "on-failure", maximumRetries: 4 },
      command: ["sh", "-c", "echo line; exit 1"],
    });
    const output = new Output();
    const signal = AbortSignal.timeout(30_000);
    for await (const { channel, chunk } of vms.engine.logs(vm.id, { follow: true, signal }))
      output.output(channel, chunk);
    expect(output.stdout).toBe("line\n".repeat(5));
    expect(signal.aborted).toBe(false);
  });

  test("is over when its VM is stopped: while it runs, and between two runs", async () => {
    await open(SLOW);
    const vm = await start("exec sleep 1000");
    expect(await vms.engine.stopVm(vm.id, 5_000, soon())).toMatchObject({
      state: "exited",
      exitCode: 143,
      restartCount: 0,
    });
    const waiting = await start("exit 3");
    expect(await restarting(waiting)).toMatchObject({
      exitCode: 3,
      restartCount: 1,
      finishedAt: null,
      pid: waiting.pid,
    });
    const waiter = ended(waiting);
    expect(await vms.engine.stopVm(waiting.id, undefined, soon())).toMatchObject({
      state: "exited",
      exitCode: 3,
      pid: null,
    });
    expect(await waiter).toMatchObject({ state: "exited", exitCode: 3 });
    expect(readProc(`/proc/${waiting.pid}/cmdline`)).toBe("");
  });

  test("is over when its VM is killed or removed, and not with any other signal", async () => {
    await open(SLOW);
    const killed = await start("exec sleep 1000");
    await vms.engine.killVm(killed.id, SIGKILL, soon());
    expect(await ended(killed)).toMatchObject({ state: "exited", exitCode: 137, restartCount: 0 });
    const asked = await start("exec sleep 1000");
    await vms.engine.killVm(asked.id, SIGTERM, soon());
    expect(await ended(asked)).toMatchObject({ state: "exited", exitCode: 143, restartCount: 0 });
    const hungUp = await start("exec sleep 1000");
    await vms.engine.killVm(hungUp.id, 1, soon());
    expect(await restarting(hungUp)).toMatchObject({ exitCode: 129, restartCount: 1 });
    expect(await refused(vms.engine.killVm(hungUp.id, 1, soon()))).toBe("vm_not_running");
    expect(await vms.engine.killVm(hungUp.id, SIGKILL, soon())).toMatchObject({ state: "exited", exitCode: 129 });
    const removed = await start("exit 1");
    await restarting(removed);
    expect(await refused(vms.engine.removeVm(removed.id, { force: false, deadline: soon() }))).toBe("vm_running");
    await vms.remove(removed.id);
    expect(vms.engine.listVms().some(({ id }) => id === removed.id)).toBe(false);
  });

  test("lets nothing be run between two runs", async () => {
    await open(SLOW);
    const vm = await start("echo said; exit 1");
    await restarting(vm);
    expect(await refused(vms.exec(vm.id, ["true"]))).toBe("vm_not_running");
    expect(await refused(() => vms.engine.attach(vm.id, new Output(), { logs: true }))).toBe("vm_not_running");
    expect(await logs(vm)).toBe("said\n");
    expect((await vms.engine.statFile(vm.id, "/tmp", soon())).type).toBe("directory");
  });

  test("does not outlast a time limit, and none is taken with what contradicts it", async () => {
    await open(QUICK);
    const vm = await start("exec sleep 1000", { timeoutMs: 300 });
    expect(await ended(vm)).toMatchObject({ exitCode: 124, exitSignal: 9, restartCount: 0 });
    const count = vms.engine.listVms().length;
    expect(await refused(start("true", { autoRemove: true }))).toBe("invalid_argument");
    expect(await refused(start("true", { restart: { name: "always", maximumRetries: 1 } }))).toBe("invalid_argument");
    expect(vms.engine.listVms().length).toBe(count);
  });

  test("ends a VM at its time limit between two runs", async () => {
    await open(SLOW);
    const vm = await start("exit 2", { timeoutMs: 4_000 });
    expect(await restarting(vm)).toMatchObject({ exitCode: 2 });
    expect(await ended(vm)).toMatchObject({ state: "exited", exitCode: 124, pid: null });
  });

  test("gives up when the command is no longer there", async () => {
    await open(QUICK);
    const vm = await start("", { command: ["/tmp/own"] }).catch((error: MayflyError) => error.code);
    expect(vm).toBe("command_not_found");
    const script = "rm -f /bin/sh; exit 1";
    const gone = await start(script);
    expect(await ended(gone)).toMatchObject({ state: "failed", restartCount: 1, error: { code: "command_not_found" } });
  });

  test("clones another QEMU for a VM whose own has died", async () => {
    await open(QUICK);
    const script = "hostname; touch /tmp/mark; exec sleep 1000";
    const vm = await start(script, { name: "again", hostname: "its-own", labels: { a: "b" } });
    await until(vm, ({ state }) => state === "running");
    await vms.shell(vm.id, "until [ -e /tmp/mark ]; do sleep 0.05; done");
    process.kill(vm.pid ?? 0, "SIGKILL");
    const second = await until(vm, ({ state, restartCount }) => state === "running" && restartCount === 1);
    const same = ({ id, name, hostname, labels, createdAt, command }: Vm) => ({
      id,
      name,
      hostname,
      labels,
      createdAt,
      command,
    });
    expect(same(second)).toEqual(same(vm));
    expect(second).toMatchObject({ error: null, exitCode: null, finishedAt: null });
    expect(second.pid).not.toBe(vm.pid);
    expect(await vms.shell(vm.id, "hostname")).toBe("its-own");
    const output = new Output();
    vms.engine.attach(vm.id, output, { logs: true });
    await output.has("its-own\nits-own\n");
    const told = events.filter(({ id, type }) => id === vm.id && type === "vm.restarting");
    expect(told.map(({ attributes }) => attributes)).toMatchObject([{ cause: "failure", exitCode: 255 }]);
    expect(await vms.engine.stopVm(vm.id, 1_000, soon())).toMatchObject({ state: "exited" });
  });

  test("shows why a VM is being started again, and can be ended then", async () => {
    await open(SLOW);
    const vm = await start("exec sleep 1000", { restart: { name: "on-failure", maximumRetries: 1 } });
    process.kill(vm.pid ?? 0, "SIGKILL");
    expect(await restarting(vm)).toMatchObject({
      pid: null,
      exitCode: 255,
      error: { code: "qemu_exited" },
      finishedAt: null,
    });
    expect(await refused(vms.exec(vm.id, ["true"]))).toBe("vm_not_running");
    expect(await vms.engine.stopVm(vm.id, undefined, soon())).toMatchObject({ state: "exited", exitCode: 255 });
    const without = await start("exec sleep 1000", { restart: { name: "no" } });
    process.kill(without.pid ?? 0, "SIGKILL");
    expect(await ended(without)).toMatchObject({ state: "failed", restartCount: 0, error: { code: "qemu_exited" } });
  });

  test("goes on over a restart of the daemon: between two runs, and while it runs", async () => {
    await open(SLOW);
    const waiting = await start("echo once; [ -e /tmp/x ] && exec sleep 1000; touch /tmp/x; exit 1");
    const running = await start("read line; echo $line; exit 7", { stdin: true });
    await restarting(waiting);
    await vms.close();
    const database = new Database(join(vms.stateDir, "mayfly.db"));
    database.run("UPDATE vms SET document = json_set(document, '$.restart.nextAtMs', 0)");
    database.close();
    await reopen(QUICK);
    await until(waiting, ({ state, restartCount }) => state === "running" && restartCount === 1);
    const output = new Output();
    vms.engine.attach(waiting.id, output, { logs: true });
    await output.has("once\nonce\n");
    const session = vms.engine.attach(running.id, new Output(), { logs: false });
    await session.write(Buffer.from("first\n"));
    expect(await session.exited).toEqual({ exitCode: 7, signal: 0 });
    await until(running, ({ state, restartCount }) => state === "running" && restartCount === 1);
    await reopen(QUICK);
    const second = vms.engine.attach(running.id, new Output(), { logs: false });
    await second.write(Buffer.from("second\n"));
    await second.exited;
    await until(running, ({ state, restartCount }) => state === "running" && restartCount === 2);
    expect(await logs(running)).toBe("first\nsecond\n");
  });

  test("starts VMs whose QEMU went while no daemon was there", async () => {
    await open(QUICK);
    const policies = ["always", "unless-stopped", "on-failure", "no"] as const;
    const all = await Promise.all(policies.map((name) => start("exec sleep 1000", { name, restart: { name } })));
    const stopped = await start("exec sleep 1000", { name: "stopped" });
    await vms.engine.stopVm(stopped.id, 1_000, soon());
    await vms.close();
    for (const { pid } of all) process.kill(pid ?? 0, "SIGKILL");
    await reopen(QUICK);
    for (const vm of all.slice(0, 3))
      await until(vm, ({ state, restartCount }) => state === "running" && restartCount === 1);
    const states = () => Object.fromEntries(vms.engine.listVms().map(({ name, state }) => [name, state]));
    expect(states()).toEqual({
      always: "running",
      "unless-stopped": "running",
      "on-failure": "running",
      no: "failed",
      stopped: "exited",
    });
    // The same as if the host had been booted meanwhile.
    await vms.close();
    for (const vm of all.slice(0, 3)) process.kill(get(vm).pid ?? 0, "SIGKILL");
    const database = new Database(join(vms.stateDir, "mayfly.db"));
    database.run(
      "UPDATE vms SET document = json_set(document, '$.qemu.identity.bootId', 'another') WHERE document ->> '$.qemu' IS NOT NULL",
    );
    database.close();
    await reopen(QUICK);
    for (const vm of all.slice(0, 2))
      await until(vm, ({ state, restartCount }) => state === "running" && restartCount === 2);
    expect(states()).toEqual({
      always: "running",
      "unless-stopped": "running",
      "on-failure": "failed",
      no: "failed",
      stopped: "exited",
    });
  }, 60_000);

  test("tries again what cannot be started for a reason that may pass", async () => {
    await open({ restartPausesMs: { first: 20, longest: 20 } });
    const vm = await start("exec sleep 1000");
    const directories = join(vms.runDir, "q");
    vms.engine.subscribe(({ type, id, attributes }) => {
      if (type !== "vm.restarting" || id !== vm.id) return;
      // For a while no QEMU has a place on this host.
      if (attributes["restartCount"] === 1) {
        renameSync(directories, `${directories}.away`);
        writeFileSync(directories, "");
      } else if (attributes["restartCount"] === 4) {
        unlinkSync(directories);
        renameSync(`${directories}.away`, directories);
      }
    });
    process.kill(vm.pid ?? 0, "SIGKILL");
    await until(vm, ({ restartCount }) => restartCount === 4);
    await until(vm, ({ state }) => state === "running");
    expect(get(vm)).toMatchObject({ restartCount: 4, error: null });
    expect(await vms.shell(vm.id, "echo well")).toBe("well");
  });
});
