/** An engine that is closed and opened again: VMs go on, and nothing of their output is lost. */
import { afterEach, expect, test } from "bun:test";
import { Output, soon, TestEngine } from "../support/engine.ts";
import { describeVms, readProc } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";

describeVms("an engine that is opened again", () => {
  let vms: TestEngine | undefined;
  afterEach(async () => {
    if (vms === undefined) return;
    await vms.removeAll();
    expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
    await vms[Symbol.asyncDispose]();
    vms = undefined;
  });

  const start = async (own: TestEngine, script: string, request = {}) => {
    const whole = { command: ["sh", "-c", script], ...request };
    return (await own.engine.createVm(whole, { deadline: soon() })).vm;
  };
  const logs = async (own: TestEngine, id: string) => {
    const output = new Output();
    const signal = new AbortController().signal;
    for await (const { channel, chunk } of own.engine.logs(id, { follow: false, signal }))
      output.output(channel, chunk);
    return output;
  };

  test("has the VMs as they were, with what runs in them", async () => {
    vms = await TestEngine.open();
    const named = await vms.start({ name: "named", hostname: "host", labels: { a: "b" } });
    const main = await start(vms, "echo begun; read line; echo $line; exit 6", { stdin: true });
    await vms.exec(named.id, ["touch", "/tmp/mark"]);
    vms = await vms.reopen();
    expect(vms.engine.getVm("named")).toEqual(named);
    expect(await vms.shell("named", "ls /tmp; hostname")).toBe("mark\nhost");
    const output = new Output();
    const session = vms.engine.attach(main.id, output, { logs: true });
    await session.write(Buffer.from("after\n"));
    expect(await session.exited).toEqual({ exitCode: 6, signal: 0 });
    expect(output.stdout).toBe("begun\nafter\n");
    expect((await vms.engine.waitVm(main.id, AbortSignal.timeout(10_000))).exitCode).toBe(6);
    expect(readProc(`/proc/${named.pid}/status`)).not.toBe("");
  });

  test("gets the exit and the whole output of a command that ended meanwhile", async () => {
    vms = await TestEngine.open();
    const vm = await start(vms, "read line; seq 1 40000; echo err >&2; exit 9", { stdin: true });
    const session = vms.engine.attach(vm.id, new Output(), { logs: false });
    await session.write(Buffer.from("go\n"));
    await vms.close();
    // Its output is more than the agent keeps: it has to wait for the next daemon.
    await Bun.sleep(300);
    vms = await vms.reopen();
    const ended = await vms.engine.waitVm(vm.id, AbortSignal.timeout(20_000));
    expect(ended).toMatchObject({ state: "exited", exitCode: 9 });
    const { stdout, stderr } = await logs(vms, vm.id);
    const expected = `${Array.from({ length: 40_000 }, (_, index) => index + 1).join("\n")}\n`;
    expect(stdout.length).toBe(expected.length);
    expect(Bun.hash(stdout)).toBe(Bun.hash(expected));
    expect(stderr).toBe("err\n");
  });

  test("keeps VMs that have no logs, whatever they have printed", async () => {
    vms = await TestEngine.open();
    const output = new Output();
    const request = {
      command: ["sh", "-c", "seq 1 1000; read line; echo $line; exit 3"],
      stdin: true,
      autoRemove: true,
    };
    const { vm } = await vms.engine.createVm(request, { deadline: soon(), sink: output });
    await output.has("1000\n");
    // With this the agent learns that the output was taken.
    await vms.exec(vm.id, ["sleep", "0.1"]);
    vms = await vms.reopen();
    expect(vms.engine.getVm(vm.id)).toMatchObject({ state: "running", error: null });
    const after = new Output();
    const session = vms.engine.attach(vm.id, after, { logs: true });
    await session.write(Buffer.from("more\n"));
    expect(await session.exited).toEqual({ exitCode: 3, signal: 0 });
    expect(after.stdout).toBe("more\n");
  });

  test("says what became of VMs that ended meanwhile", async () => {
    vms = await TestEngine.open();
    const vm = await vms.start();
    const gone = await start(vms, "sleep 1000", { autoRemove: true });
    await vms.close();
    for (const { pid } of [vm, gone]) process.kill(pid ?? 0, "SIGKILL");
    vms = await vms.reopen();
    expect(vms.engine.getVm(vm.id)).toMatchObject({ state: "failed", pid: null, error: { code: "qemu_exited" } });
    expect(vms.engine.listVms().map(({ id }) => id)).toEqual([vm.id]);
  });

  test("keeps time limits", async () => {
    vms = await TestEngine.open();
    const vm = await start(vms, "sleep 1000", { timeoutMs: 1500 });
    vms = await vms.reopen();
    expect(await vms.engine.waitVm(vm.id, AbortSignal.timeout(20_000))).toMatchObject({ exitCode: 124, exitSignal: 9 });
  });

  test("lets commands that were run beside the main process go on without their clients", async () => {
    vms = await TestEngine.open();
    const vm = await vms.start();
    const script = "i=0; while [ $i -lt 300 ]; do i=$((i+1)); seq 1 500; done; touch /tmp/done; exec sleep 1000";
    const output = new Output();
    await vms.engine.exec(vm.id, { command: ["sh", "-c", script] }, output, soon());
    await output.has("500\n");
    vms = await vms.reopen();
    expect(await vms.shell(vm.id, "until [ -e /tmp/done ]; do sleep 0.1; done; echo yes")).toBe("yes");
  });

  test("again and again changes nothing", async () => {
    vms = await TestEngine.open({ pool: { blocked: 1, warm: 1 } });
    const vm = await start(vms, "i=0; while read line; do i=$((i+1)); echo $i; done", { stdin: true });
    for (let round = 1; round <= 4; round++) {
      const session = vms.engine.attach(vm.id, new Output(), { logs: false });
      await session.write(Buffer.from("x\n"));
      vms = await vms.reopen({ pool: { blocked: 1, warm: 1 } });
    }
    const output = new Output();
    const session = vms.engine.attach(vm.id, output, { logs: true });
    await output.has("4\n");
    session.closeInput();
    await session.exited;
    expect(output.stdout).toBe("1\n2\n3\n4\n");
  });
});
