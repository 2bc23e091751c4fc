/** Forks, checkpoints and suspensions that are cut off: the old state or the new one is there, and nothing besides. */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { existsSync, mkdirSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { COUNTER, goOnOneByOne, numbersOf } from "../support/counting.ts";
import { soon, TestEngine } from "../support/engine.ts";
import { TestDaemon } from "../support/engine-daemon.ts";
import { describeVms, newDirectory } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";
import { rejection } from "../support/fake-peer.ts";

describeVms("a QEMU that fails while its state is taken", () => {
  let vms: TestEngine;

  beforeAll(async () => {
    vms = await TestEngine.open();
    await vms.remove((await vms.start()).id);
    vms.markDescriptors();
  }, 90_000);
  afterAll(() => vms?.[Symbol.asyncDispose]());
  afterEach(async () => {
    for (const vm of vms.engine.listVms()) await vms.remove(vm.id);
    expect(vms.engine.snapshots.list()).toEqual([]);
    expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
  });

  const takes = [
    {
      what: "fork",
      take: (ref: string, limitMs?: number) => vms.engine.snapshots.fork(ref, { count: 2 }, soon(limitMs)),
    },
    {
      what: "checkpoint",
      take: (ref: string, limitMs?: number) => vms.engine.snapshots.checkpoint(ref, {}, soon(limitMs)),
    },
    {
      what: "suspend",
      take: (ref: string, limitMs?: number) => vms.engine.snapshots.checkpoint(ref, { stop: true }, soon(limitMs)),
    },
  ];
  for (const { what, take } of takes) {
    test(`${what}: one that stands still is told in time, and goes on when it wakes up`, async () => {
      const vm = await vms.start({ name: "stopped", command: COUNTER });
      await numbersOf(vms, "stopped", 3);
      process.kill(vm.pid ?? 0, "SIGSTOP");
      expect((await rejection(take("stopped", 1_500))).code).toBe("deadline_exceeded");
      process.kill(vm.pid ?? 0, "SIGCONT");
      expect(await vms.shell("stopped", "echo on")).toBe("on");
      expect(goOnOneByOne(await numbersOf(vms, "stopped", 20))).toBe(true);
      expect(vms.engine.listVms().length).toBe(1);
    });

    test(`${what}: one that is killed is the VM's end, and nothing is made`, async () => {
      const vm = await vms.start({ name: "killed", command: COUNTER });
      process.kill(vm.pid ?? 0, "SIGSTOP");
      const taken = rejection(take("killed"));
      process.kill(vm.pid ?? 0, "SIGKILL");
      expect(["qemu_exited", "vm_not_running"]).toContain((await taken).code);
      expect(await vms.engine.waitVm(vm.id, AbortSignal.timeout(10_000))).toMatchObject({ state: "failed" });
      expect(vms.engine.listVms().length).toBe(1);
    });
  }

  test("a child that dies before it is ready takes the others along; the parent goes on", async () => {
    const parent = await vms.start({ name: "parent", command: COUNTER });
    const stop = vms.engine.subscribe(({ type, id }) => {
      const pid = type === "vm.running" && id !== parent.id ? vms.engine.getVm(id).pid : null;
      if (pid !== null) process.kill(pid, "SIGKILL");
    });
    const directories = () => vms.processes(4).catch(() => []);
    const forked = vms.engine.snapshots.fork("parent", { count: 3 }, soon()).catch((error: unknown) => error);
    const pids = (await directories()).filter((pid) => pid !== parent.pid);
    for (const pid of pids.slice(0, 1)) process.kill(pid, "SIGKILL");
    await forked;
    stop();
    expect(await vms.shell("parent", "echo on")).toBe("on");
  });

  test("a snapshot that cannot be read leaves the VM suspended; it can be removed", async () => {
    await vms.start({ name: "waits", command: COUNTER });
    const { id } = await vms.engine.snapshots.checkpoint("waits", { stop: true }, soon());
    const pages = join(vms.stateDir, "snapshots", id, "pages");
    const bytes = Buffer.from(await Bun.file(pages).arrayBuffer());
    bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
    rmSync(pages);
    writeFileSync(pages, bytes);
    expect((await rejection(vms.engine.snapshots.resume("waits", soon()))).code).toBe("snapshot_corrupt");
    expect(vms.engine.getVm("waits")).toMatchObject({ state: "suspended", suspendedIn: id });
    expect((await vms.engine.snapshots.verify(id, soon())).ok).toBe(false);
    const path = join(newDirectory("archive"), "damaged");
    expect((await rejection(vms.engine.snapshots.export(id, { path }, { deadline: soon() }))).code).toBe(
      "snapshot_corrupt",
    );
    expect(existsSync(path)).toBe(false);
  });
});

/** Whether this process may mount. */
const mayMount = Bun.spawnSync(["unshare", "--mount", "true"]).exitCode === 0;

describeVms("a disk without space", () => {
  const testMounted = mayMount ? test : test.skip;
  testMounted("at every stage: the VM goes on, what was there is sound, and with space all works", async () => {
    const stateDir = newDirectory("state");
    Bun.spawnSync(["mount", "-t", "tmpfs", "-o", "size=48m,mode=711", "tmpfs", stateDir]);
    mkdirSync(join(stateDir, "templates"));
    Bun.spawnSync(["mount", "--bind", newDirectory("templates"), join(stateDir, "templates")]);
    const vms = await TestEngine.open({ root: newDirectory("full"), stateDir });
    const { snapshots } = vms.engine;
    const filler = join(stateDir, "filler");
    const full = async <T>(leaveBytes: number, work: Promise<T> | (() => Promise<T>)) => {
      const { bavail, bsize } = statfsSync(stateDir);
      writeFileSync(filler, Buffer.alloc(Math.max(0, bavail * bsize - leaveBytes)));
      const error = await rejection(typeof work === "function" ? work() : work);
      rmSync(filler);
      return error.code;
    };
    try {
      await vms.start({ name: "vm", command: COUNTER });
      await vms.shell("vm", "head -c 4000000 /dev/urandom > /dev/shm/data");
      for (const leaveBytes of [0, 100_000, 2_000_000]) {
        expect(await full(leaveBytes, () => snapshots.checkpoint("vm", {}, soon()))).toBe("disk_full");
        expect(await full(leaveBytes, () => snapshots.checkpoint("vm", { stop: true }, soon()))).toBe("disk_full");
        expect(vms.engine.getVm("vm").state).toBe("running");
        expect(snapshots.list()).toEqual([]);
      }
      expect(await full(0, () => snapshots.fork("vm", {}, soon()))).toBe("disk_full");
      expect(vms.engine.listVms().length).toBe(1);
      const { id } = await snapshots.checkpoint("vm", { name: "kept" }, soon());
      const path = join(stateDir, "archive");
      expect(await full(1_000_000, () => snapshots.export("kept", { path }, { deadline: soon() }))).toBe("disk_full");
      expect(existsSync(path)).toBe(false);
      await snapshots.checkpoint("vm", { stop: true }, soon());
      expect(await full(0, () => snapshots.resume("vm", soon()))).toBe("disk_full");
      expect(vms.engine.getVm("vm").state).toBe("suspended");
      expect(await snapshots.verify(id, soon())).toMatchObject({ ok: true });
      expect(await vms.shell("vm", "echo back")).toBe("back");
      expect(goOnOneByOne(await numbersOf(vms, "vm", 20))).toBe(true);
      expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
    } finally {
      await vms[Symbol.asyncDispose]();
      Bun.spawnSync(["umount", "-lR", stateDir]);
    }
  });
});

describeVms("a daemon that is killed while it takes states", () => {
  let daemon: TestDaemon;

  beforeAll(async () => {
    daemon = await TestDaemon.start("1:0");
  }, 90_000);
  afterAll(() => daemon?.[Symbol.asyncDispose]());

  const shell = async (vm: string, script: string) => {
    const { exitCode, stdout } = await daemon.client.vms.execToEnd(vm, { command: ["sh", "-c", script] });
    expect(exitCode).toBe(0);
    return Buffer.from(stdout, "base64").toString().trim();
  };
  const logged = async (vm: string) => {
    const parts: Buffer[] = [];
    for await (const { bytes } of daemon.client.vms.logs(vm)) parts.push(Buffer.from(bytes));
    return Buffer.concat(parts).toString().split("\n").slice(0, -1).map(Number);
  };
  const operations = {
    fork: () => daemon.client.vms.fork("vm", { count: 2 }),
    checkpoint: () => daemon.client.vms.checkpoint("vm"),
    suspend: () => daemon.client.vms.checkpoint("vm", { stop: true }),
    resume: async () => {
      await daemon.client.vms.checkpoint("vm", { stop: true });
      return daemon.client.vms.resume("vm");
    },
    promote: async () => {
      const { id } = await daemon.client.vms.checkpoint("vm");
      return daemon.client.snapshots.promote(id);
    },
    export: async () => {
      const { id } = await daemon.client.vms.checkpoint("vm");
      return daemon.client.snapshots.export(id, { path: `${daemon.stateDir}/archive-${id}` });
    },
  };
  for (const [name, operation] of Object.entries(operations)) {
    test(`${name}: at any moment of it`, async () => {
      await daemon.client.vms.create({ name: "vm", command: COUNTER });
      for (const afterMs of [0, 15, 40, 90, 200, 400]) {
        const begun = operation().catch(() => undefined);
        await Bun.sleep(afterMs);
        await daemon.kill();
        await begun;
        await daemon.begin();
        const { state } = await daemon.client.vms.get("vm");
        expect(["running", "suspended"]).toContain(state);
        expect(await shell("vm", "echo on")).toBe("on");
        for (const { id } of await daemon.client.snapshots.list()) {
          expect(await daemon.client.snapshots.verify(id)).toEqual({ id, ok: true, problems: [] });
        }
        for (const { id, name: child } of await daemon.client.vms.list()) {
          if (child === "vm") continue;
          expect(await shell(id, "hostname")).toBe(child);
          await daemon.client.vms.remove(id, { force: true });
        }
        expect(await daemon.leftBehind()).toEqual(NOTHING_LEFT);
      }
      expect(goOnOneByOne(await logged("vm"))).toBe(true);
      await daemon.client.vms.remove("vm", { force: true });
      for (const { id } of await daemon.client.snapshots.list()) await daemon.client.snapshots.remove(id);
    }, 240_000);
  }
});
