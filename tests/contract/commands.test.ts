/** Commands in a clone: exit codes, the three streams, environment, user, time limits. */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { Output, soon, TestEngine } from "../support/engine.ts";
import { describeVms } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";
import { rejection } from "../support/fake-peer.ts";

describeVms("a command in a clone", () => {
  let vms: TestEngine;
  /** A VM in which short commands run. */
  let vm: string;

  beforeAll(async () => {
    vms = await TestEngine.open();
    vm = (await vms.start({ name: "shared" })).id;
    await vms.exec(vm, ["true"]);
    await vms.run(["true"]);
    vms.markDescriptors();
  });
  afterAll(() => vms?.[Symbol.asyncDispose]());
  afterEach(async () => expect(await vms.leftBehind()).toEqual(NOTHING_LEFT));

  test("runs on the guest's kernel and passes its exit code on", async () => {
    const { stdout, exitCode, signal } = await vms.run(["sh", "-c", "uname -r; exit 7"]);
    expect({ stdout, exitCode, signal }).toEqual({
      stdout: `${vms.engine.info().kernelVersion}\n`,
      exitCode: 7,
      signal: 0,
    });
  });

  test("has standard output and standard error apart", async () => {
    const { stdout, stderr } = await vms.run(["sh", "-c", "echo out; echo err >&2; echo out2; echo err2 >&2"]);
    expect({ stdout, stderr }).toEqual({ stdout: "out\nout2\n", stderr: "err\nerr2\n" });
  });

  test("that is killed has 128 and the signal", async () => {
    const { exitCode, signal } = await vms.exec(vm, ["sh", "-c", "kill -SEGV $$"]);
    expect({ exitCode, signal }).toEqual({ exitCode: 139, signal: 11 });
  });

  test("that is not there, or cannot be run, is an error with its own code", async () => {
    const codes = async (command: string[], workdir?: string) => {
      const request = workdir === undefined ? {} : { workdir };
      const [asExec, asMain] = [vms.exec(vm, command, request), vms.run(command, { ...request, autoRemove: false })];
      return [(await rejection(asExec)).code, (await rejection(asMain)).code];
    };
    expect(await codes(["no-such-program"])).toEqual(["command_not_found", "command_not_found"]);
    expect(await codes(["/etc/passwd"])).toEqual(["command_not_executable", "command_not_executable"]);
    expect(await codes(["true"], "/no/such/place")).toEqual(["command_not_found", "command_not_found"]);
  });

  test("reads what is written to its input, to the end", async () => {
    const output = new Output();
    const request = { command: ["sh", "-c", "read line; echo first=$line; cat; echo end"], stdin: true };
    const process = await vms.engine.exec(vm, request, output, soon());
    await process.write(Buffer.from("one\n"));
    await output.has("first=one");
    await process.write(Buffer.from("two\nthree\n"));
    await output.has("three");
    process.closeInput();
    expect(await process.exited).toEqual({ exitCode: 0, signal: 0 });
    expect(output.stdout).toBe("first=one\ntwo\nthree\nend\n");
  });

  test("without input reads nothing", async () => {
    expect(await vms.shell(vm, "cat; readlink /proc/self/fd/0")).toBe("/dev/null");
  });

  test("has the environment, directory and user that it was given", async () => {
    const script = 'echo "$A|$EMPTY|$HOME|$PATH"; pwd; id -u; id -g; umask';
    const env = { A: "a b=c,d\n'e'", EMPTY: "" };
    const { stdout } = await vms.exec(vm, ["sh", "-c", script], { env, workdir: "/var/tmp", user: "1000:2000" });
    const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    expect(stdout).toBe(`a b=c,d\n'e'||/|${path}\n/var/tmp\n1000\n2000\n0022\n`);
  });

  test("has no variable that nobody gave it", async () => {
    expect(
      (await vms.shell(vm, "env"))
        .split("\n")
        .map((line) => line.split("=")[0])
        .sort(),
    ).toEqual(["HOME", "PATH", "PWD", "SHLVL"]);
  });

  test("takes arguments as they are", async () => {
    const text = "a'b\"c $HOME `x` \\ \u00fc\u4e2d\ud83d\ude80";
    const { stdout } = await vms.exec(vm, ["printf", "%s|", text, "", "-n", "x".repeat(30_000)]);
    expect(stdout).toBe(`${text}||-n|${"x".repeat(30_000)}|`);
  });

  test("is killed with all that it started when its time is up", async () => {
    const script = "trap '' TERM; sleep 1000 & (setsid sleep 1000 &) ; echo started; wait";
    const begunMs = performance.now();
    const ended = await vms.exec(vm, ["sh", "-c", script], { timeoutMs: 400 });
    expect(performance.now() - begunMs).toBeGreaterThanOrEqual(400);
    expect({ exitCode: ended.exitCode, signal: ended.signal }).toEqual({ exitCode: 124, signal: 9 });
    expect(await vms.shell(vm, "ps | grep -c '[s]leep 1000' || true")).toBe("0");
  });

  test("takes signals", async () => {
    const output = new Output();
    const script = "trap 'echo got; exit 3' USR1; echo ready; while :; do sleep 0.05; done";
    const process = await vms.engine.exec(vm, { command: ["sh", "-c", script] }, output, soon());
    await output.has("ready");
    process.signal(10);
    expect(await process.exited).toEqual({ exitCode: 3, signal: 0 });
    expect(output.stdout).toBe("ready\ngot\n");
  });

  test("goes on without its client when the client leaves", async () => {
    const output = new Output();
    const script = "echo ready; read line; echo unseen; touch /tmp/left; read line";
    const process = await vms.engine.exec(vm, { command: ["sh", "-c", script], stdin: true }, output, soon());
    await output.has("ready");
    process.detach();
    await process.write(Buffer.from("go\n"));
    await vms.shell(vm, "until [ -e /tmp/left ]; do sleep 0.05; done");
    process.closeInput();
    await process.exited;
    expect(output.stdout).toBe("ready\n");
  });

  test("carries 100 MB through cat unchanged", async () => {
    const chunk = Buffer.alloc(1 << 20);
    crypto.getRandomValues(chunk.subarray(0, 65_536));
    for (let at = 65_536; at < chunk.length; at += 65_536) chunk.copyWithin(at, 0, 65_536);
    const [sent, received] = [new Bun.CryptoHasher("sha256"), new Bun.CryptoHasher("sha256")];
    let bytes = 0;
    const sink = {
      output(_channel: 1 | 2, part: Uint8Array) {
        received.update(part);
        bytes += part.length;
        return undefined;
      },
    };
    const { process } = await vms.engine.createVm(
      { command: ["cat"], stdin: true, autoRemove: true },
      { deadline: soon(), sink },
    );
    for (let index = 0; index < 100; index++) {
      chunk.writeUInt32LE(index, 4096 * index);
      sent.update(chunk);
      await process?.write(chunk.slice());
    }
    process?.closeInput();
    expect(await process?.exited).toEqual({ exitCode: 0, signal: 0 });
    expect(bytes).toBe(100 << 20);
    expect(received.digest("hex")).toBe(sent.digest("hex"));
  }, 60_000);

  test("waits while nobody takes its output", async () => {
    const { promise: taken, resolve: take } = Promise.withResolvers<void>();
    let bytes = 0;
    const sink = {
      output(_channel: 1 | 2, part: Uint8Array) {
        bytes += part.length;
        return taken;
      },
    };
    const command = ["sh", "-c", "dd if=/dev/zero bs=65536 count=64 2>/dev/null; touch /tmp/written"];
    const process = await vms.engine.exec(vm, { command }, sink, soon());
    expect(await vms.shell(vm, "sleep 0.3; ls /tmp/written 2>/dev/null || echo not yet")).toBe("not yet");
    expect(bytes).toBeLessThanOrEqual(262_144);
    take();
    await process.exited;
    expect(bytes).toBe(64 * 65_536);
  });
});
