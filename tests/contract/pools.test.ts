/** However a clone is prepared, it is the same clone: one suite over nothing prepared, QEMUs blocked on their state, and warm clones. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import type { ClonePath, CreateVmRequest } from "../../src/contract/api.ts";
import type { PoolSizes } from "../../src/engine/config.ts";
import { Output, soon, TestEngine } from "../support/engine.ts";
import { describeVms, readProc } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";

interface Kind {
  name: string;
  path: ClonePath;
  pool: PoolSizes;
  /** What each VM is asked for with. */
  request?: Partial<CreateVmRequest>;
}

const KINDS: readonly Kind[] = [
  { name: "cold path", path: "cold", pool: { blocked: 0, warm: 0 } },
  { name: "pool path", path: "pool", pool: { blocked: 2, warm: 0, parent: false } },
  { name: "pool path, from a process image", path: "pool", pool: { blocked: 2, warm: 0 } },
  { name: "warm path, each warmed by itself", path: "warm", pool: { blocked: 0, warm: 2, parent: false } },
  { name: "warm path, copied from a parent", path: "warm", pool: { blocked: 0, warm: 2 } },
  { name: "copy of a parent", path: "copy", pool: { blocked: 0, warm: 0, parent: true } },
  {
    ...{ name: "process image", path: "image", pool: { blocked: 0, warm: 0, parent: true } },
    request: { pool: false },
  },
];

describeVms("clones", () => {
  for (const { name, path, pool, request } of KINDS) {
    describe(`started by the ${name}`, () => {
      let vms: TestEngine;

      beforeAll(async () => {
        vms = await TestEngine.open({ pool });
        await vms.run(["true"]);
        // Made after the first clone, where no parent is kept that makes it.
        const { imageMaker, templates } = Reflect.get(vms.engine, "parts");
        await imageMaker.make(templates.cloneable(vms.engine.listTemplates()[0]?.id));
        await vms.poolsFull();
        vms.markDescriptors();
      });
      afterAll(() => vms?.[Symbol.asyncDispose]());
      afterEach(async () => {
        await vms.poolsFull();
        expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
      });

      test("run a command as their main process", async () => {
        const { vm, stdout, stderr, exitCode } = await vms.run(["sh", "-c", "echo out; echo err >&2; exit 4"], request);
        expect({ stdout, stderr, exitCode }).toEqual({ stdout: "out\n", stderr: "err\n", exitCode: 4 });
        expect(vm.clone.path).toBe(path);
        expect(Object.values(vm.clone.stages).every((ms) => ms >= 0)).toBe(true);
      });

      test("have an identity of their own and the right time", async () => {
        const script = "cat /etc/machine-id /proc/sys/kernel/random/uuid; hostname; date +%s";
        const clones: string[][] = [];
        for (let index = 0; index < 2; index++) clones.push((await vms.script(script, request)).split("\n"));
        const [[id, uuid, host, time] = [], [id2, uuid2, host2] = []] = clones;
        expect(id).not.toBe(id2);
        expect(uuid).not.toBe(uuid2);
        expect(host).not.toBe(host2);
        expect(Math.abs(Number(time) - Date.now() / 1000)).toBeLessThan(30);
      });

      test("hold nothing of what ran before them", async () => {
        const list =
          "ls -A /tmp /root /var/tmp; ls /sys/fs/cgroup; for exe in /proc/[0-9]*/exe; do readlink $exe; done | sort -u";
        expect(await vms.script(list, request)).toBe(await vms.script(list, { pool: false }));
      });

      test("take a terminal, input and limits", async () => {
        const output = new Output();
        const whole = { command: ["cat"], stdin: true, autoRemove: true, cpus: 0.5, ...request };
        const { process, vm } = await vms.engine.createVm(whole, { deadline: soon(), sink: output });
        await process?.write(Buffer.from("there and back"));
        process?.closeInput();
        expect(await process?.exited).toEqual({ exitCode: 0, signal: 0 });
        expect(output.stdout).toBe("there and back");
        expect(vm.cpus).toBe(0.5);
        expect((await vms.run(["tty"], { terminal: { rows: 1, columns: 1 }, ...request })).stdout).toContain(
          "/dev/pts/",
        );
      });

      test("can be forked, suspended and resumed", async () => {
        const vm = await vms.start({ name: "parent", ...request });
        expect(vm.clone.path).toBe(path);
        const { vmIds } = await vms.engine.snapshots.fork(vm.id, { namePrefix: "child" }, soon());
        await vms.engine.snapshots.checkpoint(vm.id, { stop: true }, soon());
        await vms.engine.snapshots.resume(vm.id, soon());
        const names = [];
        for (const id of [vm.id, ...vmIds]) names.push((await vms.exec(id, ["hostname"])).stdout);
        expect(names).toEqual(["parent\n", "child\n"]);
        for (const id of [vm.id, ...vmIds]) await vms.remove(id);
      });

      test("can be told to use nothing prepared", async () => {
        const { parent = pool.warm + pool.blocked > 0 } = pool;
        expect((await vms.run(["true"], { pool: false })).vm.clone.path).toBe(parent ? "image" : "cold");
      });
    });
  }

  test.each([
    ["nothing", "cold", false],
    ["their parent", "copy", true],
  ] as const)("of a burst beyond the pool are started from %s", async (_, beyond, parent) => {
    await using vms = await TestEngine.open({ pool: { blocked: 1, warm: 1, parent } });
    const made = await Promise.all([1, 2, 3, 4].map(() => vms.run(["true"])));
    const paths = made.map(({ vm }) => vm.clone.path).sort();
    expect(paths.filter((path) => path === "warm").length).toBeGreaterThanOrEqual(1);
    expect(paths.filter((path) => path === beyond).length).toBeGreaterThanOrEqual(1);
    await vms.poolsFull();
    expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
  });

  test("that wait warm use no CPU", async () => {
    await using vms = await TestEngine.open({ pool: { blocked: 1, warm: 1 } });
    const pids = await vms.processes(3);
    const ticks = () => pids.map((pid) => readProc(`/proc/${pid}/stat`).split(" ").slice(13, 15).join(" "));
    // The blocked one may still be starting.
    let before = ticks();
    for (let idle = 0; idle < 3; idle++) {
      await Bun.sleep(500);
      if (ticks().join() !== before.join()) idle = 0;
      before = ticks();
    }
    await Bun.sleep(1500);
    expect(ticks()).toEqual(before);
  });

  test("that die while they wait are replaced, and a request does not notice", async () => {
    for (const pool of [
      { blocked: 1, warm: 0, parent: false },
      { blocked: 0, warm: 1, parent: false },
      { blocked: 0, warm: 1 },
      { blocked: 0, warm: 0, parent: true },
    ]) {
      await using vms = await TestEngine.open({ pool });
      const [{ blocked = 0, standing = 0, warm = 0, parent = false } = {}] = vms.engine.info().pools;
      const count = blocked + standing + warm + Number(parent);
      const pids = await vms.processes(count);
      for (const pid of pids) process.kill(pid, "SIGKILL");
      expect((await vms.run(["echo", "fine"])).stdout).toBe("fine\n");
      await vms.poolsFull();
      for (const pid of await vms.processes(count)) expect(pids).not.toContain(pid);
      expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
    }
  });

  test("that wait end with their engine", async () => {
    const vms = await TestEngine.open({ pool: { blocked: 1, warm: 1 } });
    await vms.processes(3);
    await vms.close();
    await vms.processes(0);
  });
});
