/** Kept output: reading, following, its end; and attaching to a main process. */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { Output, soon, TestEngine } from "../support/engine.ts";
import { describeVms } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";
import { rejection } from "../support/fake-peer.ts";

describeVms("kept output", () => {
  let vms: TestEngine;

  beforeAll(async () => {
    vms = await TestEngine.open();
    await vms.run(["true"]);
    vms.markDescriptors();
  });
  afterAll(() => vms?.[Symbol.asyncDispose]());
  afterEach(async () => {
    await vms.removeAll();
    expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
  });

  const start = async (script: string, request = {}) => {
    const whole = { command: ["sh", "-c", script], ...request };
    return (await vms.engine.createVm(whole, { deadline: soon() })).vm.id;
  };
  const read = async (id: string, options: { follow?: boolean; tail?: number; signal?: AbortSignal } = {}) => {
    const output = new Output();
    const { follow = false, signal = new AbortController().signal, ...rest } = options;
    for await (const { channel, chunk } of vms.engine.logs(id, { follow, signal, ...rest }))
      output.output(channel, chunk);
    return { stdout: output.stdout, stderr: output.stderr };
  };
  const ended = (id: string) => vms.engine.waitVm(id, AbortSignal.timeout(30_000));

  test("of a VM that has ended is there, both streams apart, until the VM is removed", async () => {
    const id = await start("echo one; echo two >&2; echo three; exit 3");
    const vm = await ended(id);
    expect({ state: vm.state, exitCode: vm.exitCode, pid: vm.pid }).toEqual({
      state: "exited",
      exitCode: 3,
      pid: null,
    });
    expect(await read(id)).toEqual({ stdout: "one\nthree\n", stderr: "two\n" });
    await vms.remove(id);
    expect((await rejection(read(id))).code).toBe("vm_not_found");
  });

  test("gives its last lines", async () => {
    const id = await start("seq 1 5000; seq 1 3 >&2; printf unfinished");
    await ended(id);
    expect(await read(id, { tail: 2 })).toEqual({ stdout: "5000\nunfinished", stderr: "2\n3\n" });
    expect(await read(id, { tail: 0 })).toEqual({ stdout: "", stderr: "" });
    expect((await read(id, { tail: 100_000 })).stdout.length).toBe((await read(id)).stdout.length);
  });

  test("is followed to the VM's end", async () => {
    const id = await start("for i in 1 2 3; do echo out$i; echo err$i >&2; sleep 0.1; done");
    expect(await read(id, { follow: true })).toEqual({ stdout: "out1\nout2\nout3\n", stderr: "err1\nerr2\nerr3\n" });
    expect((await ended(id)).exitCode).toBe(0);
  });

  test("is followed from its end on, until the reader leaves", async () => {
    const id = await start("echo before; read line; echo after; sleep 1000", { stdin: true });
    const session = vms.engine.attach(id, new Output(), { logs: true });
    const leaving = new AbortController();
    const seen = new Output();
    const following = (async () => {
      for await (const { channel, chunk } of vms.engine.logs(id, { follow: true, tail: 1, signal: leaving.signal })) {
        seen.output(channel, chunk);
      }
    })();
    await seen.has("before");
    await session.write(Buffer.from("\n"));
    await seen.has("after");
    leaving.abort();
    await following;
    expect(seen.stdout).toBe("before\nafter\n");
  });

  test("of a VM that prints more than the limit keeps the end", async () => {
    await using small = await TestEngine.open({ logLimitBytes: 65_536 });
    const { vm } = await small.engine.createVm({ command: ["seq", "100000", "140000"] }, { deadline: soon() });
    await small.engine.waitVm(vm.id, AbortSignal.timeout(30_000));
    const output = new Output();
    for await (const { channel, chunk } of small.engine.logs(vm.id, {
      follow: false,
      signal: new AbortController().signal,
    })) {
      output.output(channel, chunk);
    }
    expect(output.stdout.endsWith("139999\n140000\n")).toBe(true);
    expect(output.stdout.length).toBeGreaterThanOrEqual(32_768);
    expect(output.stdout.length).toBeLessThan(4 * 65_536);
  });

  test("and what comes after reach a client that attaches later, without a gap", async () => {
    const id = await start("i=0; while read line; do i=$((i+1)); echo $line $i; done; echo end", { stdin: true });
    const first = new Output();
    const session = vms.engine.attach(id, first, { logs: true });
    await session.write(Buffer.from("a\nb\n"));
    await first.has("b 2");
    const second = new Output();
    const joined = vms.engine.attach(id, second, { logs: true });
    const third = new Output();
    const without = vms.engine.attach(id, third, { logs: false });
    await joined.write(Buffer.from("c\n"));
    await second.has("c 3");
    session.closeInput();
    for (const one of [session, joined, without]) expect(await one.exited).toEqual({ exitCode: 0, signal: 0 });
    expect([first.stdout, second.stdout]).toEqual(["a 1\nb 2\nc 3\nend\n", "a 1\nb 2\nc 3\nend\n"]);
    expect(third.stdout).toBe("c 3\nend\n");
  });

  test("is nobody's of a VM without a main process", async () => {
    const { id } = await vms.start();
    expect(() => vms.engine.attach(id, new Output(), { logs: true })).toThrow("no main process");
    expect(await read(id)).toEqual({ stdout: "", stderr: "" });
  });
});
