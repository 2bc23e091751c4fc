/** The daemon killed at any moment: VMs run on, the next one adopts them, nothing is lost or left. */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { listenUnix } from "../../src/sys/libc.ts";
import { soon } from "../support/engine.ts";
import { TestDaemon } from "../support/engine-daemon.ts";
import { describeVms, processesMentioning, readProc } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";

describeVms("a daemon that is killed", () => {
  let daemon: TestDaemon;

  beforeAll(async () => {
    daemon = await TestDaemon.start("1:1");
  }, 60_000);
  afterAll(() => daemon?.[Symbol.asyncDispose]());
  afterEach(async () => {
    // One failure is enough.
    if (!daemon.isRunning) await daemon.begin();
    const within = <T>(step: Promise<T>, what: string) => soon(10_000).race(step, what);
    const { vms } = daemon.client;
    for (const { id } of await within(vms.list(), "the list")) await within(vms.remove(id, { force: true }), "removal");
    const fine = await within(vms.run({ command: ["echo", "fine"], autoRemove: true }), "a VM's start");
    expect((await within(fine.collect(), "its end")).stdout).toBe("fine\n");
    expect(await daemon.leftBehind()).toEqual(NOTHING_LEFT);
  });

  const text = (base64: string) => Buffer.from(base64, "base64").toString();
  const shell = async (vm: string, script: string) => {
    const { exitCode, stdout, stderr } = await daemon.client.vms.execToEnd(vm, { command: ["sh", "-c", script] });
    if (exitCode !== 0) throw new Error(`ended with ${exitCode}: ${text(stderr)}`);
    return text(stdout).trim();
  };
  const logged = async (vm: string) => {
    const parts: Buffer[] = [];
    for await (const { name, bytes } of daemon.client.vms.logs(vm))
      if (name === "stdout") parts.push(Buffer.from(bytes));
    return Buffer.concat(parts);
  };

  test("leaves its VMs running, and the next one has them as they were", async () => {
    const vm = await daemon.client.vms.create({ name: "kept", labels: { a: "b" } });
    await shell("kept", "echo here > /tmp/mark");
    const uptime = Number(await shell("kept", "cut -d' ' -f1 /proc/uptime"));
    await daemon.kill();
    expect(readProc(`/proc/${vm.pid}/cmdline`)).toContain("qemu");
    await daemon.begin();
    expect(await daemon.client.vms.get("kept")).toEqual(vm);
    expect(await shell("kept", "cat /tmp/mark")).toBe("here");
    expect(Number(await shell("kept", "cut -d' ' -f1 /proc/uptime"))).toBeGreaterThan(uptime);
  });

  test("leaves no prepared QEMU of its pools", async () => {
    await daemon.kill();
    await daemon.begin();
    expect(await daemon.leftBehind()).toEqual(NOTHING_LEFT);
  });

  test("loses nothing of a command that ends meanwhile, whatever it prints", async () => {
    // More than the window of a stream and than all that the agent keeps, in lines that tell their place.
    const script = "seq 1 200000; echo err >&2; exit 9";
    const run = await daemon.client.vms.run({ name: "printer", command: ["sh", "-c", script] });
    run.exited.catch(() => undefined);
    for await (const _first of run.output) break;
    await daemon.kill();
    await Bun.sleep(500);
    await daemon.begin();
    const ended = await daemon.client.vms.wait("printer");
    expect({ state: ended.state, exitCode: ended.exitCode, error: ended.error }).toEqual({
      state: "exited",
      exitCode: 9,
      error: null,
    });
    const expected = createHash("sha256");
    for (let line = 1; line <= 200_000; line++) expected.update(`${line}\n`);
    expect(
      createHash("sha256")
        .update(await logged("printer"))
        .digest("hex"),
    ).toBe(expected.digest("hex"));
  });

  test("again and again while a command prints doubles and loses nothing", async () => {
    const script = "i=0; while [ $i -lt 60 ]; do i=$((i+1)); seq $i 1000 20000; sleep 0.05; done; exit 3";
    await daemon.client.vms.create({ name: "steady", command: ["sh", "-c", script] });
    for (let round = 0; round < 5; round++) {
      await Bun.sleep(100 + 60 * round);
      await daemon.restart();
    }
    expect((await daemon.client.vms.wait("steady")).exitCode).toBe(3);
    let expected = "";
    for (let i = 1; i <= 60; i++) for (let n = i; n <= 20_000; n += 1000) expected += `${n}\n`;
    expect((await logged("steady")).toString()).toBe(expected);
  });

  test("notices VMs that were killed with it", async () => {
    const vm = await daemon.client.vms.create({ name: "both" });
    await daemon.kill();
    process.kill(vm.pid ?? 0, "SIGKILL");
    await daemon.begin();
    expect(await daemon.client.vms.get("both")).toMatchObject({ state: "failed", error: { code: "qemu_exited" } });
  });

  test("waits for no VM that stands still: it has the others, and that one when it answers", async () => {
    const stopped = await daemon.client.vms.create({ name: "stopped" });
    const running = await daemon.client.vms.create({ name: "running" });
    await daemon.kill();
    process.kill(stopped.pid ?? 0, "SIGSTOP");
    await daemon.begin();
    expect(daemon.startMs).toBeLessThan(15_000);
    expect(await shell(running.name, "echo well")).toBe("well");
    process.kill(stopped.pid ?? 0, "SIGCONT");
    expect(await shell(stopped.name, "echo back")).toBe("back");
  });

  test("at random moments of starting, using and removing VMs is recovered from", async () => {
    let seed = 20;
    const random = () => {
      seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31;
      return seed / 2 ** 31;
    };
    for (let round = 0; round < 20; round++) {
      const { client } = daemon;
      const work = (async () => {
        for (;;) {
          const vm = await client.vms.create({ pool: round % 2 === 0 });
          const { exitCode } = await client.vms.execToEnd(vm.id, { command: ["true"] });
          expect(exitCode).toBe(0);
          await client.vms.remove(vm.id, { force: true });
        }
      })().catch((error: unknown) => error);
      await Bun.sleep(random() * 300);
      await daemon.kill();
      expect(await work).toBeInstanceOf(Error);
      await daemon.begin();
      for (const vm of await daemon.client.vms.list()) {
        if (vm.state !== "running") continue;
        expect(await shell(vm.id, "echo adopted")).toBe("adopted");
        await daemon.client.vms.remove(vm.id, { force: true });
      }
      expect(await daemon.leftBehind()).toEqual(NOTHING_LEFT);
    }
  }, 60_000);

  test("while it builds a template leaves nothing of it for the next one", async () => {
    const build = daemon.client.templates.build({ memoryBytes: 256 << 20 }).catch((error: unknown) => error);
    const untilMs = performance.now() + 5_000;
    const building = () =>
      [...processesMentioning(`${daemon.stateDir}/`).values()].some((line) => line.includes("-kernel"));
    while (!building() && performance.now() < untilMs) await Bun.sleep(5);
    expect(building()).toBe(true);
    await daemon.kill();
    expect(await build).toBeInstanceOf(Error);
    await daemon.begin();
    expect(building()).toBe(false);
    expect((await daemon.client.templates.list()).map(({ shape }) => shape.memoryMiB)).toEqual([128]);
  });

  test("politely ends the same way", async () => {
    const vm = await daemon.client.vms.create({ name: "polite" });
    await daemon.kill("SIGTERM");
    expect([...processesMentioning(`${daemon.stateDir}/`).keys()]).toEqual([vm.pid ?? 0]);
    await daemon.begin();
    expect(await shell("polite", "echo here")).toBe("here");
  });

  test("and followed by two at once is followed by one", async () => {
    await daemon.kill();
    const started = await Promise.all([daemon.launch(), daemon.launch()]);
    const failed = started.filter((outcome) => "said" in outcome);
    expect(failed.length).toBe(1);
    expect(failed[0]?.exitCode).toBe(125);
    expect(failed[0]?.said).toContain("daemon_running");
    for (const outcome of started) if ("kill" in outcome) outcome.kill("SIGKILL");
    await Promise.all(started.map((outcome) => ("exited" in outcome ? outcome.exited : undefined)));
    await daemon.begin();
  });

  test("that serves keeps another one out, of the state and of the socket", async () => {
    const second = await daemon.launch();
    expect(second).toMatchObject({ exitCode: 125 });
    expect("said" in second && second.said).toContain("daemon_running");
    expect((await daemon.client.system.version()).pid).toBe(daemon.pid);
  });

  test("leaves sockets and directories that the next one does not stumble over", async () => {
    await daemon.kill();
    const directory = join(daemon.runDir, "q", "0");
    mkdirSync(directory, { recursive: true });
    for (const name of ["qmp", "agent"]) {
      const path = join(directory, name);
      if (!existsSync(path)) writeFileSync(path, "stale");
    }
    mkdirSync(join(daemon.runDir, "q", "7"), { recursive: true });
    listenUnix(join(daemon.runDir, "q", "7", "qmp"), 1);
    await daemon.begin();
    expect(await shell((await daemon.client.vms.create({})).id, "echo fine")).toBe("fine");
  });
});
