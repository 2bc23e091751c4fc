/** States of VMs, cut off at every step of taking, keeping and bringing them back: the old state or the new one is there, and is sound. */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { MayflyError } from "../../src/contract/errors.ts";
import { COUNTER, goOnOneByOne, numbersOf } from "../support/counting.ts";
import { soon, TestEngine } from "../support/engine.ts";
import { TestDaemon } from "../support/engine-daemon.ts";
import { describeVms, newDirectory, processesMentioning } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";
import { momentsToStrike, tellSteps } from "../support/steps.ts";

/** Something that is done to the VM `vm`, whose state `kept` was kept. */
interface Operation {
  /** Until it can be done. */
  prepare?(): Promise<unknown>;
  run(limitMs?: number): Promise<unknown>;
}

/** How forks are made, as copies of a process or from saved states; how VMs are resumed, from saved states or process images. */
const WAYS = [
  { way: "", pool: "0:0", options: { pool: { blocked: 0, warm: 0 } }, isToDo: () => true },
  {
    way: ", which copies no process",
    pool: "0:0:0",
    options: { pool: { blocked: 0, warm: 0, parent: false } },
    isToDo: (name: string) => name === "fork",
  },
  {
    way: ", which has process images",
    pool: "0:0:1",
    options: { pool: { blocked: 0, warm: 0 }, processImages: true },
    isToDo: (name: string) => ["suspend", "resume"].includes(name),
  },
];

for (const { way, pool, isToDo } of WAYS)
  describeVms(`a daemon${way}, that is killed at every step`, () => {
    let daemon: TestDaemon;
    let diesAt: string;
    let archive: string;

    beforeAll(async () => {
      diesAt = join(newDirectory("moments"), "dies-at");
      archive = join(newDirectory("archives"), "archive");
      const preload = { path: join(import.meta.dir, "../support/dies-at.ts"), env: { MAYFLY_TEST_DIES_AT: diesAt } };
      daemon = await TestDaemon.start(pool, { preload });
    }, 90_000);
    afterAll(() => daemon?.[Symbol.asyncDispose]());
    afterEach(async () => {
      rmSync(diesAt, { force: true });
      if (!daemon.isRunning) await daemon.begin();
      await removeAll();
      rmSync(archive, { force: true });
    });

    const shell = async (vm: string, script: string) => {
      const { exitCode, stdout } = await daemon.client.vms.execToEnd(vm, { command: ["sh", "-c", script] });
      return exitCode === 0 ? Buffer.from(stdout, "base64").toString().trim() : `failed with ${exitCode}`;
    };
    const keep = async () => {
      await daemon.client.vms.create({ name: "vm", command: COUNTER });
      await daemon.client.vms.checkpoint("vm", { name: "kept" });
    };
    const suspended = async () => {
      if ((await daemon.client.vms.get("vm")).state === "running")
        await daemon.client.vms.checkpoint("vm", { stop: true });
    };
    const ended = async () => {
      if ((await daemon.client.vms.get("vm")).finishedAt === null) await daemon.client.vms.stop("vm", 0);
    };
    const snapshotsAre = async (names: (string | null)[]) => {
      const list = await daemon.client.snapshots.list();
      for (const { id, kind } of list) {
        expect(await daemon.client.snapshots.verify(id)).toEqual({ id, ok: true, problems: [] });
        if (kind === "suspended") expect((await daemon.client.vms.get("vm")).suspendedIn).toBe(id);
      }
      for (const name of names) expect(list.map((snapshot) => snapshot.name)).toContain(name);
    };
    const operations: Record<string, Operation & { mayEnd?: boolean }> = {
      checkpoint: { run: () => daemon.client.vms.checkpoint("vm") },
      fork: { run: () => daemon.client.vms.fork("vm", { count: 2 }) },
      suspend: { run: () => daemon.client.vms.checkpoint("vm", { stop: true }) },
      resume: { prepare: suspended, run: () => daemon.client.vms.resume("vm") },
      restore: { prepare: ended, run: () => daemon.client.snapshots.restore("kept"), mayEnd: true },
      "run --snapshot": { run: () => daemon.client.vms.create({ snapshot: "kept" }) },
      export: { run: () => daemon.client.snapshots.export("kept", { path: archive }) },
      promote: { run: () => daemon.client.snapshots.promote("kept") },
    };

    /** Does it once to learn its steps, then once for each of them, at which the daemon dies. */
    async function atEveryStep({ prepare, run }: Operation, check: () => Promise<void>): Promise<void> {
      await prepare?.();
      writeFileSync(diesAt, "record");
      await run();
      rmSync(diesAt);
      const moments = momentsToStrike(readFileSync(`${diesAt}.told`, "utf8").trim().split("\n"));
      rmSync(`${diesAt}.told`);
      expect(moments.length).toBeGreaterThan(1);
      await check();
      for (const moment of moments) {
        await prepare?.();
        writeFileSync(diesAt, moment);
        await run().catch(() => undefined);
        // The last steps are waited for by nobody: the files of a snapshot that a VM has come back from go afterwards.
        const deadline = soon(5_000);
        while (existsSync(diesAt) && deadline.remainingMs > 0) await Bun.sleep(5);
        const died = !existsSync(diesAt);
        await daemon.kill();
        rmSync(diesAt, { force: true });
        await daemon.begin();
        expect({ moment, died }).toEqual({ moment, died: true });
        await check();
      }
    }

    for (const [name, operation] of Object.entries(operations)) {
      if (!isToDo(name)) continue;
      test(`${name}: the VM is what it was or what it was to become`, async () => {
        await keep();
        await atEveryStep(operation, async () => {
          const { finishedAt } = await daemon.client.vms.get("vm");
          if (operation.mayEnd !== true) expect(finishedAt).toBeNull();
          await snapshotsAre(["kept"]);
          if (finishedAt === null) expect(await shell("vm", "echo on")).toBe("on");
          for (const { id, name: other } of await daemon.client.vms.list()) {
            if (other === "vm") continue;
            expect(await shell(id, "hostname")).toBe(other);
            await daemon.client.vms.remove(id, { force: true });
          }
          for (const { id, name: named } of await daemon.client.snapshots.list()) {
            if (named === null) await daemon.client.snapshots.remove(id);
          }
          if (existsSync(archive)) await archiveIsWhole();
          if (name === "promote") await promotedIsWhole();
          expect(await daemon.leftBehind()).toEqual(NOTHING_LEFT);
        });
        if (operation.mayEnd !== true) expect(goOnOneByOne(await logged())).toBe(true);
      }, 600_000);
    }

    if (isToDo("import"))
      test("import, base and all: there whole, or not at all", async () => {
        await keep();
        await daemon.client.snapshots.export("kept", { path: archive });
        await removeAll();
        const clear = async () => {
          await removeAll();
          for (const { id } of await daemon.client.templates.list())
            await daemon.client.templates.remove(id, { force: true });
        };
        const run = () => daemon.client.snapshots.import({ path: archive, name: "kept" });
        await atEveryStep({ prepare: clear, run }, async () => {
          await snapshotsAre([]);
          for (const { id } of await daemon.client.templates.list()) {
            expect((await daemon.client.templates.verify(id)).ok).toBe(true);
          }
          if ((await daemon.client.snapshots.list()).length === 0) return;
          await daemon.client.snapshots.restore("kept");
          expect(await shell("vm", "echo on")).toBe("on");
        });
      }, 600_000);

    const logged = async () => {
      const parts: Buffer[] = [];
      for await (const { bytes } of daemon.client.vms.logs("vm")) parts.push(Buffer.from(bytes));
      return Buffer.concat(parts).toString().split("\n").slice(0, -1).map(Number);
    };
    const removeAll = async () => {
      for (const { id } of await daemon.client.vms.list()) await daemon.client.vms.remove(id, { force: true });
      for (const { id } of await daemon.client.snapshots.list()) await daemon.client.snapshots.remove(id);
    };
    const archiveIsWhole = async () => {
      await daemon.client.snapshots.remove("kept");
      await daemon.client.snapshots.import({ path: archive, name: "kept" });
      rmSync(archive);
    };
    /** What was promoted goes on, and is not promoted next time. */
    const promotedIsWhole = async () => {
      const { promotedTo } = await daemon.client.snapshots.get("kept");
      const { id } = await daemon.client.vms.create({ snapshot: "kept" });
      expect(await shell(id, "echo on")).toBe("on");
      expect((await daemon.client.vms.get(id)).templateId === promotedTo).toBe(promotedTo !== null);
      await daemon.client.vms.remove(id, { force: true });
      await daemon.client.snapshots.remove("kept");
      await daemon.client.vms.checkpoint("vm", { name: "kept" });
    };
  });

/** Whether this process may mount. */
const mayMount = Bun.spawnSync(["unshare", "--mount", "true"]).exitCode === 0;

for (const { way, options, isToDo } of WAYS)
  describeVms(`in an engine${way}, at every step`, () => {
    let vms: TestEngine;
    let archive: string;
    /** Its templates are on the same file system, which is small. */
    const stateDir = newDirectory("small");

    beforeAll(async () => {
      if (mayMount) Bun.spawnSync(["mount", "-t", "tmpfs", "-o", "size=256m,mode=711", "tmpfs", stateDir]);
      mkdirSync(join(stateDir, "templates"), { mode: 0o711 });
      vms = await TestEngine.open({ root: newDirectory("moments"), stateDir, ...options });
      archive = join(stateDir, "archive");
    }, 90_000);
    afterAll(async () => {
      await vms?.[Symbol.asyncDispose]();
      if (mayMount) Bun.spawnSync(["umount", "-l", stateDir]);
    });

    afterEach(removeAll);

    /** QEMUs whose VMs are going to end. */
    const killed = new Set<number>();
    const snapshots = () => vms.engine.snapshots;
    const begin = async () => {
      if (vms.engine.listVms().length > 0) return;
      if (!existsSync(archive)) for (const { id } of snapshots().list()) await snapshots().remove(id);
      await vms.start({ name: "vm", command: COUNTER });
      await numbersOf(vms, "vm", 3);
      if (snapshots().list().length === 0) await snapshots().checkpoint("vm", { name: "kept" }, soon());
    };
    const running = async () => {
      await begin();
      if (vms.engine.getVm("vm").state === "suspended") await snapshots().resume("vm", soon());
    };
    const suspended = async () => {
      await begin();
      if (vms.engine.getVm("vm").state === "running") await snapshots().checkpoint("vm", { stop: true }, soon());
    };
    const ended = async () => {
      await begin();
      if (vms.engine.getVm("vm").finishedAt === null) await vms.engine.stopVm("vm", 0, soon());
    };
    const path = () => ({ path: archive });
    const unexported = async () => {
      await running();
      rmSync(archive, { force: true });
    };
    const exported = async () => {
      await running();
      if (!existsSync(archive)) await snapshots().export("kept", path(), { deadline: soon() });
      for (const { id, name } of snapshots().list()) if (name === "kept") await snapshots().remove(id);
    };
    const operations: Record<string, Operation> = {
      checkpoint: { prepare: running, run: (ms) => snapshots().checkpoint("vm", {}, soon(ms)) },
      fork: { prepare: running, run: (ms) => snapshots().fork("vm", { count: 2 }, soon(ms)) },
      suspend: { prepare: running, run: (ms) => snapshots().checkpoint("vm", { stop: true }, soon(ms)) },
      resume: { prepare: suspended, run: (ms) => snapshots().resume("vm", soon(ms)) },
      restore: { prepare: ended, run: (ms) => snapshots().restore("kept", soon(ms)) },
      "run --snapshot": { prepare: running, run: (ms) => vms.start({ snapshot: "kept" }, ms) },
      promote: { prepare: running, run: (ms) => snapshots().promote("kept", { deadline: soon(ms) }) },
      export: { prepare: unexported, run: (ms) => snapshots().export("kept", path(), { deadline: soon(ms) }) },
      import: {
        prepare: exported,
        run: (ms) => snapshots().import({ ...path(), name: "kept" }, { deadline: soon(ms) }),
      },
    };

    /** What is there is sound; then all but the VM goes. */
    const check = async () => {
      for (const { id } of snapshots().list()) {
        expect(await snapshots().verify(id, soon())).toEqual({ id, ok: true, problems: [] });
      }
      for (const { id, pid } of vms.engine.listVms()) {
        if (pid !== null && killed.has(pid)) await vms.engine.waitVm(id, AbortSignal.timeout(20_000));
      }
      killed.clear();
      for (const { id, name, state, error } of vms.engine.listVms()) {
        if (state === "failed") expect(["qemu_exited", "agent_disconnected"]).toContain(error?.code ?? "");
        else if (state !== "exited") expect(await vms.shell(id, "echo on")).toBe("on");
        if (name !== "vm" || state === "failed") await vms.remove(id);
      }
      for (const { id, name, promotedTo } of snapshots().list()) {
        if (name === null || promotedTo !== null) await snapshots().remove(id);
      }
      if (
        !snapshots()
          .list()
          .some(({ name }) => name === "kept") &&
        !existsSync(archive)
      )
        await vms.removeAll();
      expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
    };

    /** Does it once to learn its steps, then once for each of them, at which `strike` is called. */
    async function atEveryStep({ prepare, run }: Operation, strike: () => void, limitMs: number, then: () => void) {
      await prepare?.();
      const told: string[] = [];
      {
        using _telling = tellSteps((moment) => told.push(moment));
        await run();
      }
      await check();
      for (const moment of momentsToStrike(told)) {
        await prepare?.();
        let struck = false;
        let outcome: unknown;
        {
          using _telling = tellSteps((now) => {
            if (struck || now !== moment) return;
            struck = true;
            strike();
          });
          outcome = await run(limitMs).catch((error: unknown) => error);
        }
        then();
        expect({ moment, struck }).toEqual({ moment, struck: true });
        if (outcome instanceof Error) expect(outcome).toBeInstanceOf(MayflyError);
        await check();
      }
    }

    async function removeAll(): Promise<void> {
      await vms.removeAll();
      for (const { id } of snapshots().list()) await snapshots().remove(id);
      rmSync(archive, { force: true });
    }

    const qemus = (which: "own" | "new") => {
      const own = vms.engine.listVms().find(({ name }) => name === "vm")?.pid;
      return [...processesMentioning(`${stateDir}/`).keys()].filter((pid) => (pid === own) === (which === "own"));
    };
    const strikes = [
      ...["fork", "checkpoint", "suspend"].map((name) => ({ name, which: "own" as const })),
      ...["fork", "resume", "restore", "run --snapshot"].map((name) => ({ name, which: "new" as const })),
    ];
    for (const { name, which } of strikes) {
      const whose = which === "own" ? "the VM's QEMU" : "a new QEMU";
      const operation = operations[name] ?? operations["fork"];
      if (operation === undefined || !isToDo(name)) continue;
      test(`${name}: ${whose} is killed`, async () => {
        const kill = () => {
          for (const pid of qemus(which)) {
            process.kill(pid, "SIGKILL");
            killed.add(pid);
          }
        };
        await atEveryStep(operation, kill, 40_000, () => undefined);
      }, 300_000);

      test(`${name}: ${whose} stands still, and goes on later`, async () => {
        const stopped = new Set<number>();
        const goOn = () => {
          for (const pid of [...qemus("own"), ...qemus("new")]) if (stopped.has(pid)) process.kill(pid, "SIGCONT");
          stopped.clear();
        };
        const stop = () => {
          for (const pid of qemus(which)) {
            process.kill(pid, "SIGSTOP");
            stopped.add(pid);
          }
          // When whoever asked has been told: what it was sent meanwhile it finds then.
          setTimeout(goOn, 1_500);
        };
        await atEveryStep(operation, stop, 1_000, goOn);
      }, 300_000);
    }

    const testMounted = mayMount ? test : test.skip;
    for (const [name, operation] of Object.entries(operations)) {
      if (!isToDo(name)) continue;
      testMounted(
        `${name}: the disk is full`,
        async () => {
          const filler = join(stateDir, "filler");
          const fill = () => {
            const { bavail, bsize } = statfsSync(stateDir);
            Bun.spawnSync(["fallocate", "-l", String(Math.max(1, bavail) * bsize), filler]);
          };
          await atEveryStep(operation, fill, 40_000, () => rmSync(filler, { force: true }));
        },
        300_000,
      );
    }
  });
