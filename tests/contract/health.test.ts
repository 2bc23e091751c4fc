/** Health checks in real VMs: run as the container's user, one at a time, over restarts of the daemon and of the main process. */
import { afterEach, expect, test } from "bun:test";
import type { CreateVmRequest, Event, HealthCheck, Vm } from "../../src/contract/api.ts";
import { soon, TestEngine } from "../support/engine.ts";
import { describeVms } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";
import { erofsOf, rootTree } from "../support/rootfs.ts";

const OFTEN: HealthCheck = { intervalMs: 20, timeoutMs: 10_000, retries: 2 };
/** Counts what the checks below run for ever. */
const SLEEPERS = "ps -o args | grep -c '^sleep 4321'; true";
const shell = (text: string, numbers: HealthCheck = {}): HealthCheck => ({
  ...OFTEN,
  ...numbers,
  test: ["CMD-SHELL", text],
});

describeVms("a health check", () => {
  let vms: TestEngine;
  const events: Event[] = [];
  let watchers: (() => void)[] = [];

  const listen = () =>
    vms.engine.subscribe((event) => {
      events.push(event);
      for (const wake of watchers) wake();
    });
  const open = async (options: Parameters<typeof TestEngine.open>[0] = {}) => {
    vms = await TestEngine.open({ restartPausesMs: { first: 1, longest: 4 }, ...options });
    listen();
  };
  afterEach(async () => {
    await vms.removeAll();
    expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
    await vms[Symbol.asyncDispose]();
    events.length = 0;
    watchers = [];
  });

  const start = async (request: CreateVmRequest): Promise<Vm> =>
    (await vms.engine.createVm(request, { deadline: soon() })).vm;
  const get = (vm: Vm) => vms.engine.getVm(vm.id);
  /** Waits until a VM's health has a status: each change comes with an event. */
  const until = async (vm: Vm, is: (vm: Vm) => boolean): Promise<Vm> => {
    const deadline = soon(30_000);
    while (!is(get(vm))) {
      const { promise, resolve } = Promise.withResolvers<void>();
      watchers.push(resolve);
      await deadline.race(promise, `a change of ${JSON.stringify(get(vm).health)}`);
    }
    return get(vm);
  };
  const turns = (vm: Vm, status: string) => until(vm, ({ health }) => health?.status === status);

  test("follows what the command says, and tells of changes only", async () => {
    await open();
    const vm = await start({ health: shell("cat /tmp/well; exit $?") });
    expect(vm.health).toEqual({ status: "starting", failingStreak: 0, lastExitCode: null, lastOutput: "" });
    const sick = await turns(vm, "unhealthy");
    expect(sick.health).toMatchObject({ failingStreak: 2, lastExitCode: 1 });
    expect(sick.health?.lastOutput).toContain("No such file");
    await vms.shell(vm.id, "echo fine > /tmp/well.new; mv /tmp/well.new /tmp/well");
    expect((await turns(vm, "healthy")).health).toEqual({
      status: "healthy",
      failingStreak: 0,
      lastExitCode: 0,
      lastOutput: "fine\n",
    });
    await vms.shell(vm.id, "rm /tmp/well");
    await turns(vm, "unhealthy");
    const told = events.filter(({ type, id }) => type === "vm.health" && id === vm.id);
    expect(told.map(({ attributes }) => attributes["status"])).toEqual(["unhealthy", "healthy", "unhealthy"]);
    expect(told[0]).toMatchObject({ name: vm.name, attributes: { failingStreak: 2, exitCode: 1 } });
    const samples = vms.engine.metrics().samples;
    const count = (result: string) => samples.find(({ labels }) => labels["result"] === result)?.value ?? 0;
    expect(count("failed")).toBeGreaterThanOrEqual(4);
    expect(count("passed")).toBeGreaterThanOrEqual(1);
    const gauge = samples.find(({ name, labels }) => name === "mayfly_vms_health" && labels["status"] === "unhealthy");
    expect(gauge?.value).toBe(1);
  });

  test("ends what takes too long, with all that it has started; keeps the beginning of what it prints", async () => {
    await open();
    const hanging = await start({
      health: shell("sleep 4321 & echo begun; sleep 4321", { timeoutMs: 300, retries: 1 }),
    });
    expect((await turns(hanging, "unhealthy")).health).toMatchObject({ lastExitCode: -1 });
    expect(get(hanging).health?.lastOutput).toContain("300 ms");
    const flood = await start({ health: shell("yes 0123456789", { retries: 1 }) });
    expect((await turns(flood, "unhealthy")).health?.lastOutput).toContain("more than 1 MiB");
    const long = await start({ health: shell("seq 1 3000") });
    const { health } = await turns(long, "healthy");
    expect(health?.lastOutput.length).toBe(4096);
    expect(health?.lastOutput.startsWith("1\n2\n3\n")).toBe(true);
    const missing = await start({ health: { ...OFTEN, test: ["CMD", "/no/such/check"] } });
    expect((await turns(missing, "unhealthy")).health).toMatchObject({ lastExitCode: -1, failingStreak: 2 });
    // One check at most is there at a time.
    const count = await vms.shell(hanging.id, SLEEPERS);
    expect(Number(count)).toBeLessThanOrEqual(3);
  });

  test("is none where the request says so", async () => {
    await open();
    const vm = await start({ health: { test: ["NONE"] } });
    expect(vm.health).toBeNull();
    const error = await start({ health: { test: ["CMD"] } }).catch((cause: Error) => cause.message);
    expect(error).toContain("Cannot check a VM's health");
  });

  test("goes on with the next daemon, and the one that it has interrupted is gone", async () => {
    await open();
    const vm = await start({ health: shell("[ -e /tmp/hang ] && exec sleep 4321; exit 0", { timeoutMs: 300_000 }) });
    await turns(vm, "healthy");
    await vms.shell(vm.id, `touch /tmp/hang; until [ $(${SLEEPERS}) -eq 1 ]; do sleep 0.05; done`);
    vms = await vms.reopen();
    listen();
    expect(get(vm).health?.status).toBe("healthy");
    expect(await vms.shell(vm.id, `rm /tmp/hang; ${SLEEPERS}`)).toBe("0");
    await vms.shell(vm.id, "true");
    const sick = await start({ health: shell("exit 3") });
    await turns(sick, "unhealthy");
    vms = await vms.reopen();
    listen();
    expect(get(sick).health).toMatchObject({ status: "unhealthy", lastExitCode: 3 });
    expect(get(vm).health?.status).toBe("healthy");
  });

  test("begins anew with each main process, and rests between two", async () => {
    await open();
    const script = "echo x >> /tmp/runs; read line; exit 1";
    const health = shell("test $(wc -l < /tmp/runs) -eq 1", { retries: 1 });
    const vm = await start({ command: ["sh", "-c", script], stdin: true, restart: { name: "always" }, health });
    await turns(vm, "healthy");
    const session = vms.engine.attach(vm.id, { output: () => undefined }, { logs: false });
    session.closeInput();
    await session.exited;
    await until(vm, ({ restartCount, health: now }) => restartCount === 1 && now?.status === "unhealthy");
    const told = events.filter(({ id, type }) => id === vm.id && type !== "vm.adopted").map(({ type }) => type);
    expect(told).toEqual(["vm.running", "vm.health", "vm.restarting", "vm.running", "vm.health"]);
  });

  test("runs in the container as its user with its environment", async () => {
    await open();
    const rootfs = await erofsOf(await rootTree());
    const health = shell("echo $(id -u) $WHERE $(pwd) $(hostname); test -e /etc/release");
    const command = ["sleep", "1000"];
    const vm = await start({
      rootfs,
      command,
      health,
      user: "1000:1000",
      env: { WHERE: "inside" },
      workdir: "/srv",
      hostname: "box",
    });
    expect((await turns(vm, "healthy")).health?.lastOutput).toBe("1000 inside /srv box\n");
  });
});

describeVms("a container that is started again", () => {
  test("has its writable layer, a first process of its own, and nothing of the processes before", async () => {
    await using vms = await TestEngine.open({ restartPausesMs: { first: 1, longest: 1 } });
    const rootfs = await erofsOf(await rootTree());
    const script =
      "echo $$ >> /srv/pids; ps | grep -c ' sleep 4321$' >> /srv/counts; sleep 4321 & [ $(wc -l < /srv/pids) -ge 3 ] && exec sleep 1000; exit 1";
    const restart = { name: "always" } as const;
    const request: CreateVmRequest = { rootfs, command: ["sh", "-c", script], restart };
    const { promise, resolve } = Promise.withResolvers<void>();
    vms.engine.subscribe(({ type, attributes }) => {
      if (type === "vm.running" && attributes["restartCount"] === 2) resolve();
    });
    const { vm } = await vms.engine.createVm(request, { deadline: soon() });
    await soon().race(promise, "the third run");
    expect(vms.engine.getVm(vm.id)).toMatchObject({ state: "running", pid: vm.pid, restartCount: 2 });
    expect(await vms.shell(vm.id, "until grep -c . /srv/counts | grep -q 3; do sleep 0.1; done; cat /srv/pids")).toBe(
      "1\n1\n1",
    );
    expect(await vms.shell(vm.id, "cat /srv/counts")).toBe("0\n0\n0");
  });
});
