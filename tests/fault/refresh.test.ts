/** Giving memory back that is cut off: the VM goes on, with what it has by then. */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { COUNTER, goOnOneByOne, numbersOf } from "../support/counting.ts";
import { soon, TestEngine } from "../support/engine.ts";
import { TestDaemon } from "../support/engine-daemon.ts";
import { describeVms } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";
import { rejection } from "../support/fake-peer.ts";
import { withLauncher } from "../support/faulty-artifacts.ts";

const ENDINGS = [
  { what: "at once", script: "echo 'mayfly-launcher: no memory today' >&2; exit 126" },
  { what: "while the VM stands still", script: "read line; echo 9000000; read line; exit 1" },
  { what: "with nonsense", script: "read line; echo 9000000; read line; echo all of it" },
];

for (const { what, script } of ENDINGS) {
  describeVms(`a program that gives memory back and ends ${what}`, () => {
    let vms: TestEngine;
    beforeAll(async () => {
      const launcher = `case "$1" in --discard) ${script} ;; *) exec "$LAUNCHER" "$@" ;; esac`;
      vms = await TestEngine.open({ artifacts: withLauncher(launcher) });
    }, 90_000);
    afterAll(() => vms?.[Symbol.asyncDispose]());

    test("the VM goes on", async () => {
      const vm = await vms.start({ name: "vm", command: COUNTER });
      expect(["not_capturable", "internal"]).toContain((await rejection(vms.engine.refreshVm("vm", soon()))).code);
      expect(await vms.shell("vm", "echo on")).toBe("on");
      expect(goOnOneByOne(await numbersOf(vms, "vm", 20))).toBe(true);
      expect(vms.engine.getVm("vm").pid).toBe(vm.pid);
      await vms.remove("vm");
      expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
    });
  });
}

describeVms("a QEMU that does not move while its memory is given back", () => {
  let vms: TestEngine;
  beforeAll(async () => {
    vms = await TestEngine.open();
  }, 90_000);
  afterAll(() => vms?.[Symbol.asyncDispose]());

  test("is told in time, and goes on when it wakes up", async () => {
    const vm = await vms.start({ name: "stopped", command: COUNTER });
    await numbersOf(vms, "stopped", 3);
    process.kill(vm.pid ?? 0, "SIGSTOP");
    expect((await rejection(vms.engine.refreshVm("stopped", soon(1_500)))).code).toBe("deadline_exceeded");
    process.kill(vm.pid ?? 0, "SIGCONT");
    expect(await vms.shell("stopped", "echo on")).toBe("on");
    expect(goOnOneByOne(await numbersOf(vms, "stopped", 20))).toBe(true);
    await vms.remove("stopped");
  });
});

describeVms("a daemon that is killed while it gives memory back", () => {
  let daemon: TestDaemon;
  beforeAll(async () => {
    daemon = await TestDaemon.start();
  }, 90_000);
  afterAll(() => daemon?.[Symbol.asyncDispose]());
  afterEach(async () => {
    await daemon.client.vms.remove("vm", { force: true });
    expect(await daemon.leftBehind()).toEqual(NOTHING_LEFT);
  });

  const shell = async (script: string) => {
    const { exitCode, stdout } = await daemon.client.vms.execToEnd("vm", { command: ["sh", "-c", script] });
    expect(exitCode).toBe(0);
    return Buffer.from(stdout, "base64").toString().trim();
  };

  test("at any moment of it", async () => {
    await daemon.client.vms.create({ name: "vm", command: COUNTER });
    const kept = await shell("head -c 3000000 /dev/urandom >/tmp/kept; sha256sum /tmp/kept");
    for (const afterMs of [0, 20, 60, 120, 200, 350]) {
      await shell("dd if=/dev/urandom of=/dev/null bs=24M count=1 iflag=fullblock");
      const begun = daemon.client.vms.refresh("vm").catch(() => undefined);
      await Bun.sleep(afterMs);
      await daemon.kill();
      await begun;
      await daemon.begin();
      expect((await daemon.client.vms.get("vm")).state).toBe("running");
      expect(await shell("sha256sum /tmp/kept")).toBe(kept);
    }
    await daemon.client.vms.refresh("vm");
    expect(await shell("sha256sum /tmp/kept")).toBe(kept);
    const parts: Buffer[] = [];
    for await (const { bytes } of daemon.client.vms.logs("vm")) parts.push(Buffer.from(bytes));
    const numbers = Buffer.concat(parts).toString().split("\n").slice(0, -1).map(Number);
    expect(goOnOneByOne(numbers)).toBe(true);
  }, 120_000);
});
