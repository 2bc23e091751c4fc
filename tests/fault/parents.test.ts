/** Parents that clones are copied from: killed, stopped, and on hosts that allow none. Requests are served all the same, and nothing is left. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { MayflyError } from "../../src/contract/errors.ts";
import { soon, TestEngine } from "../support/engine.ts";
import { TestDaemon } from "../support/engine-daemon.ts";
import { describeVms, newDirectory, processesMentioning } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";
import { withLauncher } from "../support/faulty-artifacts.ts";

/** The programs that keep a parent, and which. */
function keepers(): { pid: number; parent: number }[] {
  return readdirSync("/proc").flatMap((name) => {
    const [, option, parent] = /^\d+$/.test(name) ? commandOf(name) : [];
    return option === "--parent" ? [{ pid: Number(name), parent: Number(parent) }] : [];
  });
}

function commandOf(pid: string): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "latin1").split("\0");
  } catch {
    return [];
  }
}

describeVms("a parent", () => {
  let vms: TestEngine;
  beforeAll(async () => {
    vms = await TestEngine.open({ pool: { blocked: 0, warm: 0, parent: true } });
    vms.markDescriptors();
  });
  afterAll(() => vms?.[Symbol.asyncDispose]());
  afterEach(async () => {
    await vms.removeAll();
    await vms.poolsFull();
    expect((await vms.run(["echo", "fine"])).stdout).toBe("fine\n");
    expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
    expect(keepers().filter(({ parent }) => !existsSync(`/proc/${parent}`))).toEqual([]);
  });

  const pids = () => [...processesMentioning(`${vms.stateDir}/`).keys()];

  test("whose keeper is killed is replaced; its copies go on", async () => {
    const vm = await vms.start();
    expect(vm.clone.path).toBe("copy");
    const [parent = 0] = pids().filter((pid) => pid !== vm.pid);
    const keeper = keepers().find((one) => one.parent === parent);
    process.kill(keeper?.pid ?? 0, "SIGKILL");
    const deadline = soon();
    while (existsSync(`/proc/${parent}`)) await deadline.race(Bun.sleep(5), "the end of the parent");
    expect((await vms.exec(vm.id, ["echo", "still here"])).stdout).toBe("still here\n");
    expect((await vms.run(["echo", "another"])).stdout).toBe("another\n");
  });

  for (const signal of ["SIGKILL", "SIGSTOP"] as const) {
    test(`and its copies, given ${signal} at any time of a request`, async () => {
      for (let afterMs = 0; afterMs <= 24; afterMs += signal === "SIGKILL" ? 3 : 8) {
        // After some failures in a row a pool waits for the next request before it tries again.
        expect((await vms.run(["echo", "fine"])).stdout).toBe("fine\n");
        await vms.poolsFull();
        expect(vms.engine.info().pools).toMatchObject([{ parent: true }]);
        const request = vms.engine.createVm({}, { deadline: soon(2_000) }).then(
          ({ vm }) => vm.id,
          (error: unknown) => error,
        );
        await Bun.sleep(afterMs);
        for (const pid of pids()) process.kill(pid, signal);
        const outcome = await request;
        if (typeof outcome !== "string") expect(outcome).toBeInstanceOf(MayflyError);
        await vms.removeAll();
        // One that stands still, as its parent does, is stopped for good.
        if (signal === "SIGSTOP") for (const pid of pids()) process.kill(pid, "SIGKILL");
      }
    }, 60_000);
  }

  test("that is not wanted any more ends, also while it is being made", async () => {
    const [template] = vms.engine.listTemplates();
    const failures: unknown[] = [];
    const stop = vms.engine.subscribe((event) => event.type === "pool.refill_failed" && failures.push(event));
    for (const madeForMs of [0, 30, 300, 1_000]) {
      await vms.engine.resizePool(template?.id ?? "", { blocked: 0, warm: 0 });
      expect(vms.engine.info().pools).toMatchObject([{ parent: false, target: { parent: false } }]);
      expect(pids()).toEqual([]);
      await vms.engine.resizePool(template?.id ?? "", { blocked: 0, warm: 0, parent: true });
      await Bun.sleep(madeForMs);
    }
    stop();
    expect(failures).toEqual([]);
  });
});

describeVms("a VM that is forked", () => {
  test("and killed at any time of it, is the end of that VM alone; its children go on, or there are none", async () => {
    await using vms = await TestEngine.open({ pool: { blocked: 0, warm: 0 } });
    let isDone = false;
    let rounds = 0;
    for (let afterMs = 0; !isDone && afterMs <= 300; afterMs += 3, rounds++) {
      const vm = await vms.start({ name: "forked" });
      const forked = vms.engine.snapshots.fork("forked", { count: 2 }, soon()).catch((error: unknown) => error);
      await Bun.sleep(afterMs);
      process.kill(vm.pid ?? 0, "SIGKILL");
      const outcome = await forked;
      if (outcome instanceof Error) expect(outcome).toBeInstanceOf(MayflyError);
      isDone = !(outcome instanceof Error);
      await vms.engine.waitVm("forked", AbortSignal.timeout(10_000));
      const others = vms.engine.listVms().filter(({ name }) => name !== "forked");
      expect(others.length).toBe(outcome instanceof Error ? 0 : 2);
      for (const { id, hostname } of others) expect(await vms.shell(id, "hostname")).toBe(hostname);
      await vms.removeAll();
      expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
    }
    expect(isDone).toBe(true);
    expect(rounds).toBeGreaterThan(3);
  }, 120_000);

  test("where copies fail, is forked from its state, and stands still twice at most three times", async () => {
    const counted = join(newDirectory("counted"), "count");
    const script = `[ "$1" != --fork ] || { read -r process; echo >> ${counted}; echo ready; read -r line; echo "no copy" >&2; exit 126; }\nexec "$LAUNCHER" "$@"`;
    await using vms = await TestEngine.open({ artifacts: withLauncher(script), pool: { blocked: 0, warm: 0 } });
    const vm = await vms.start({ name: "forked" });
    for (let time = 0; time < 5; time++) {
      const { vmIds, deltaBytes } = await vms.engine.snapshots.fork(vm.id, {}, soon());
      expect(deltaBytes).toBeGreaterThan(0);
      expect(vmIds.map((id) => vms.engine.getVm(id).clone.path)).toEqual(["cold"]);
      await vms.remove(vmIds[0] ?? "");
    }
    expect(readFileSync(counted, "utf8").length).toBe(3);
  });
});

describeVms("a host that allows no copies", () => {
  test("has warm clones that were warmed one by one", async () => {
    const artifacts = withLauncher('[ "$1" != --parent ] || { echo "not here" >&2; exit 126; }\nexec "$LAUNCHER" "$@"');
    await using vms = await TestEngine.open({ artifacts, pool: { blocked: 0, warm: 1 } });
    expect(vms.engine.info().pools).toMatchObject([{ warm: 1, parent: false, target: { parent: false } }]);
    const { vm, stdout } = await vms.run(["echo", "all the same"]);
    expect({ path: vm.clone.path, stdout }).toEqual({ path: "warm", stdout: "all the same\n" });
    await vms.poolsFull();
    expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
  });

  test("at first only, has a full pool for all that, and says so", async () => {
    const script =
      '[ "$1" != --parent ] || [ -e "$0.tried" ] || { touch "$0.tried"; echo "not yet" >&2; exit 126; }\nexec "$LAUNCHER" "$@"';
    const pool = { blocked: 0, warm: 0, parent: true };
    await using vms = await TestEngine.open({ artifacts: withLauncher(script), pool });
    expect(vms.engine.info().pools).toMatchObject([{ parent: true }]);
    expect((await vms.run(["true"])).vm.clone.path).toBe("copy");
    await vms.poolsFull();
    expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
  });

  test("has none where each copy fails, and starts from nothing", async () => {
    const script =
      '[ "$1" != --parent ] || { echo ready; read -r line; echo "no copy" >&2; exit 126; }\nexec "$LAUNCHER" "$@"';
    const pool = { blocked: 0, warm: 0, parent: true };
    await using vms = await TestEngine.open({ artifacts: withLauncher(script), pool });
    const paths: unknown[] = [];
    for (let run = 0; run < 3; run++) {
      paths.push((await vms.run(["true"])).vm.clone.path);
      await vms.poolsFull();
    }
    expect(paths).toEqual(["cold", "cold", "cold"]);
    expect(vms.engine.info().pools).toMatchObject([{ parent: false, target: { parent: false } }]);
    expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
  });
});

describeVms("a daemon that is killed", () => {
  describe("with a parent and copies of it", () => {
    test("leaves the copies running, for the next one to adopt, and no parent", async () => {
      await using daemon = await TestDaemon.start("0:1:1");
      const deadline = soon();
      const hasParent = async () =>
        (await daemon.client.system.info()).pools.some(({ parent, warm }) => parent && warm > 0);
      while (!(await hasParent())) await deadline.race(Bun.sleep(20), "a parent");
      const vm = await daemon.client.vms.create({ name: "stays", command: ["sleep", "1000"] });
      const before = keepers().filter(({ parent }) => commandOf(String(parent)).join().includes(daemon.stateDir));
      expect(before.length).toBe(1);
      await daemon.restart();
      for (const { pid } of before) expect(keepers().map((keeper) => keeper.pid)).not.toContain(pid);
      const again = await daemon.client.vms.get("stays");
      expect({ pid: again.pid, state: again.state }).toEqual({ pid: vm.pid, state: "running" });
      const run = await daemon.client.vms.execToEnd("stays", { command: ["hostname"] });
      expect(Buffer.from(run.stdout, "base64").toString()).toBe("stays\n");
      const other = await daemon.client.vms.create({ command: ["sleep", "1000"] });
      expect(other.id).not.toBe(vm.id);
      expect(await daemon.leftBehind()).toEqual(NOTHING_LEFT);
    });
  });
});
