/** A state directory without space: a small tmpfs that is filled at the right moment. */
import { afterEach, expect, test } from "bun:test";
import { mkdirSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Output, soon, TestEngine, type TestEngineOptions } from "../support/engine.ts";
import { describeVms, newDirectory } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";
import { rejection } from "../support/fake-peer.ts";
import { rootTree, tarballOf } from "../support/rootfs.ts";

const MIB = 1 << 20;

/** Whether this process may mount. */
const mayMount = Bun.spawnSync(["unshare", "--mount", "true"]).exitCode === 0;
const testMounted = (name: string, body: () => Promise<void>) =>
  mayMount ? test(name, body) : test.skip(`${name} (this process may not mount)`, body);

describeVms("a full disk", () => {
  let vms: TestEngine | undefined;
  let mount: string | undefined;

  afterEach(async () => {
    if (vms !== undefined) {
      await vms.removeAll();
      expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
      await vms[Symbol.asyncDispose]();
    }
    if (mount !== undefined) Bun.spawnSync(["umount", "-lR", mount]);
    vms = mount = undefined;
  });

  const open = async (mebibytes: number, options: TestEngineOptions = {}) => {
    const root = newDirectory("full");
    const stateDir = newDirectory("state");
    const { exitCode, stderr } = Bun.spawnSync(
      ["mount", "-t", "tmpfs", "-o", `size=${mebibytes}m,mode=711`, "tmpfs", stateDir],
      { stderr: "pipe" },
    );
    if (exitCode !== 0) throw new Error(stderr.toString());
    mount = stateDir;
    // A clone that reads a hole of a memory file on tmpfs takes space there: templates that are used lie on a disk.
    if (options.templates === undefined) {
      mkdirSync(join(stateDir, "templates"));
      Bun.spawnSync(["mount", "--bind", newDirectory("templates"), join(stateDir, "templates")]);
    }
    vms = await TestEngine.open({ root, stateDir, ...options });
    return vms;
  };
  /** Takes all the space but so many bytes. @returns a function that gives it back. */
  const fill = (leaveBytes: number) => {
    const path = join(mount ?? "", "filler");
    const { bavail, bsize } = statfsSync(mount ?? "");
    writeFileSync(path, Buffer.alloc(Math.max(0, bavail * bsize - leaveBytes)));
    return () => rmSync(path);
  };

  testMounted("while a template is built fails the build, and leaves nothing of it", async () => {
    const own = await open(40, { templates: [] });
    const error = await rejection(own.engine.buildTemplate({}, { deadline: soon() }));
    expect({ code: error.code, stage: error.stage }).toMatchObject({ code: "disk_full" });
    expect(own.engine.listTemplates()).toEqual([]);
    expect(statfsSync(own.stateDir).bavail * statfsSync(own.stateDir).bsize).toBeGreaterThan(38 * MIB);
  });

  testMounted("while a template is published fails the build, and the next one with space works", async () => {
    const own = await open(300, { templates: [] });
    const giveBack = fill(60 * MIB);
    expect((await rejection(own.engine.buildTemplate({}, { deadline: soon() }))).code).toBe("disk_full");
    expect(await own.leftBehind()).toEqual(NOTHING_LEFT);
    giveBack();
    expect((await own.run(["echo", "fine"])).stdout).toBe("fine\n");
  });

  testMounted("while an image is imported fails the import, and leaves nothing of it", async () => {
    const own = await open(200);
    const tree = await rootTree();
    writeFileSync(join(tree, "srv/large"), Buffer.alloc(20 * MIB, "incompressible"));
    const path = await tarballOf(tree);
    const giveBack = fill(10 * MIB);
    const error = await rejection(own.engine.importImage({ name: "large", path }, { deadline: soon() }));
    expect(error.code).toBe("disk_full");
    expect(own.engine.listImages()).toEqual([]);
    expect(await own.leftBehind()).toEqual(NOTHING_LEFT);
    giveBack();
    await own.engine.importImage({ name: "large", path }, { deadline: soon() });
    expect((await own.run(["sh", "-c", "wc -c < /srv/large"], { rootfs: "large" })).stdout).toBe(`${20 * MIB}\n`);
  });

  testMounted("while output is logged ends the log, not the command, and the VM's record says so", async () => {
    const own = await open(200);
    const output = new Output();
    const script = "read line; i=0; while [ $i -lt 40 ]; do i=$((i+1)); head -c 65536 /dev/zero; done; exit 5";
    const request = { command: ["sh", "-c", script], stdin: true };
    const { vm, process } = await own.engine.createVm(request, { deadline: soon(), sink: output });
    const giveBack = fill(256 * 1024);
    await process?.write(Buffer.from("go\n"));
    expect(await process?.exited).toEqual({ exitCode: 5, signal: 0 });
    expect(output.stdout.length).toBe(40 * 65_536);
    const ended = await own.engine.waitVm(vm.id, AbortSignal.timeout(10_000));
    expect(ended).toMatchObject({ state: "exited", exitCode: 5, error: { code: "disk_full" } });
    giveBack();
    expect((await own.run(["echo", "fine"])).stdout).toBe("fine\n");
  });

  testMounted("that ended a log does not end the VM when the daemon is started again, and logs go on", async () => {
    const own = await open(200);
    const output = new Output();
    const script = "while read count; do head -c $count /dev/zero | tr '\\0' x; done; echo end; exit 4";
    const request = { command: ["sh", "-c", script], stdin: true };
    const { vm, process } = await own.engine.createVm(request, { deadline: soon(), sink: output });
    const giveBack = fill(64 * 1024);
    await process?.write(Buffer.from("300000\n"));
    await output.has("x".repeat(300_000));
    await own.exec(vm.id, ["sleep", "0.1"]);
    giveBack();
    vms = await own.reopen();
    const session = vms.engine.attach(vm.id, new Output(), { logs: false });
    await session.write(Buffer.from("1000\n"));
    session.closeInput();
    expect(await session.exited).toEqual({ exitCode: 4, signal: 0 });
    const logged = new Output();
    const signal = new AbortController().signal;
    for await (const { channel, chunk } of vms.engine.logs(vm.id, { follow: false, signal }))
      logged.output(channel, chunk);
    expect(logged.stdout.endsWith(`${"x".repeat(1000)}end\n`)).toBe(true);
    expect(logged.stdout.length).toBeLessThan(300_000);
  });

  testMounted("does not keep VMs from being started, used, or ending, or says clearly that it does", async () => {
    const own = await open(200);
    const before = await own.start();
    const giveBack = fill(0);
    expect(await own.shell(before.id, "echo still here")).toBe("still here");
    const outcome = await own.run(["echo", "started"], { autoRemove: true }).then(
      ({ stdout }) => stdout,
      (error: { code: string }) => error.code,
    );
    expect(["started\n", "disk_full"]).toContain(outcome);
    process.kill(before.pid ?? 0, "SIGKILL");
    expect((await own.engine.waitVm(before.id, AbortSignal.timeout(10_000))).state).toBe("failed");
    giveBack();
    expect((await own.run(["echo", "fine"])).stdout).toBe("fine\n");
    vms = await own.reopen();
    expect(vms.engine.getVm(before.id).state).toBe("failed");
  });

  testMounted("when the engine is opened is an error, and later it opens", async () => {
    const stateDir = newDirectory("state");
    Bun.spawnSync(["mount", "-t", "tmpfs", "-o", "size=2m,mode=711", "tmpfs", stateDir]);
    mount = stateDir;
    const giveBack = fill(0);
    const root = newDirectory("full");
    expect((await rejection(TestEngine.open({ root, stateDir, templates: [] }))).code).toBe("disk_full");
    giveBack();
    vms = await TestEngine.open({ root, stateDir, templates: [] });
    expect(vms.engine.listVms()).toEqual([]);
  });
});
