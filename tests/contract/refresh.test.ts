/** Memory that a guest has freed goes back to the host, and its programs do not notice. */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { createHash, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { COUNTER, goOnOneByOne, numbersOf } from "../support/counting.ts";
import { Output, soon, TestEngine } from "../support/engine.ts";
import { describeVms } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";
import { rejection } from "../support/fake-peer.ts";

const MIB = 1 << 20;
const memoryBytes = 256 * MIB;
/** Allocates 64 MiB, fills them, and frees them. */
const FILL_AND_FREE = "dd if=/dev/urandom of=/dev/null bs=64M count=1 iflag=fullblock";

describeVms("refreshed VMs", () => {
  let vms: TestEngine;

  beforeAll(async () => {
    vms = await TestEngine.open({ templates: [{ memoryMiB: 256, vcpus: 1 }] });
    await vms.remove((await vms.start({ memoryBytes })).id);
    vms.markDescriptors();
  }, 90_000);
  afterAll(() => vms?.[Symbol.asyncDispose]());
  afterEach(async () => {
    for (const vm of vms.engine.listVms()) await vms.remove(vm.id);
    expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
  });

  const guestBytes = async (ref: string) => (await vms.engine.statsVm(ref, soon())).guestUniqueMemoryBytes;
  const templateHash = (id: string) =>
    createHash("sha256")
      .update(readFileSync(`${vms.stateDir}/templates/${id}/memory`))
      .digest("hex");

  test("64 MiB that were written and freed are the host's again, and nothing else has changed", async () => {
    const vm = await vms.start({ memoryBytes, command: COUNTER, name: "busy" });
    const checksum = templateHash(vm.templateId);
    // A process with an open file that has no name any more, and data that it would notice to be others.
    const output = new Output();
    const session = await vms.engine.exec(
      "busy",
      {
        command: [
          "/bin/sh",
          "-c",
          "head -c 3000000 /dev/urandom >/tmp/kept; exec 4</tmp/kept; sha256sum /proc/self/fd/4; rm /tmp/kept; read x; sha256sum /proc/self/fd/4; echo $$",
        ],
        stdin: true,
      },
      output,
      soon(),
    );
    await output.has("/proc/self/fd/4\n");
    const idle = await guestBytes("busy");
    await vms.shell("busy", FILL_AND_FREE);
    const busy = await guestBytes("busy");
    expect(busy).toBeGreaterThan(idle + 60 * MIB);
    const result = await vms.engine.refreshVm("busy", soon());
    const after = await guestBytes("busy");
    expect(result.returnedBytes).toBeGreaterThan(60 * MIB);
    expect(after).toBeLessThan(idle + 4 * MIB);
    expect(result.uniqueMemoryBytes).toBeGreaterThanOrEqual(after);
    expect(result.longestStopMs).toBeGreaterThan(0);
    expect(result.stoppedMs).toBeGreaterThanOrEqual(result.longestStopMs);
    // The same QEMU and processes, over the same connections.
    expect(vms.engine.getVm("busy").pid).toBe(vm.pid);
    await session.write(Buffer.from("\n"));
    expect((await session.exited).exitCode).toBe(0);
    const [first, second] = output.stdout.split("\n").map((line) => line.split(" ")[0]);
    expect(second).toBe(first ?? "");
    expect(goOnOneByOne(await numbersOf(vms, "busy", 20))).toBe(true);
    expect(templateHash(vm.templateId)).toBe(checksum);
    const ahead = Number(await vms.shell("busy", "date +%s")) - Date.now() / 1000;
    expect(Math.abs(ahead)).toBeLessThan(2);
  });

  test("a guest that writes all the while keeps every byte", async () => {
    await vms.start({ memoryBytes, name: "writer" });
    const script =
      "for n in 1 2 3 4 5 6 7 8; do head -c 4000000 /dev/urandom >/tmp/$n; sha256sum /tmp/$n >>/tmp/sums; done; sha256sum -c /tmp/sums | grep -c OK";
    const written = vms.shell("writer", script);
    for (let round = 0; round < 4; round++) await vms.engine.refreshVm("writer", soon());
    expect(await written).toBe("8");
    await vms.engine.refreshVm("writer", soon());
    expect(await vms.shell("writer", "sha256sum -c /tmp/sums | grep -c OK")).toBe("8");
  });

  test("what its agent was sent goes back as well: the kernel keeps each message in a page of its own", async () => {
    await vms.start({ memoryBytes, name: "told" });
    // What refreshing itself leaves.
    await vms.engine.refreshVm("told", soon());
    const before = await guestBytes("told");
    const output = new Output();
    const command = { command: ["/bin/sh", "-c", "cat >/dev/null; echo taken"], stdin: true };
    const session = await vms.engine.exec("told", command, output, soon());
    for (let sent = 0; sent < 5 * MIB; sent += MIB) await session.write(randomBytes(MIB));
    session.closeInput();
    await output.has("taken");
    await session.exited;
    const told = await guestBytes("told");
    expect(told).toBeGreaterThan(before + 4 * MIB);
    await vms.engine.refreshVm("told", soon());
    expect((await guestBytes("told")) - before).toBeLessThan(2 * MIB);
    expect(await vms.shell("told", "echo on")).toBe("on");
  });

  test("one that was refreshed is forked, suspended and adopted like all others", async () => {
    await vms.start({ memoryBytes, command: COUNTER, name: "one" });
    await vms.shell("one", FILL_AND_FREE);
    await vms.engine.refreshVm("one", soon());
    const { vmIds, deltaBytes } = await vms.engine.snapshots.fork("one", {}, soon());
    expect(deltaBytes).toBeLessThan(24 * MIB);
    expect(await vms.shell(vmIds[0] ?? "", "echo here")).toBe("here");
    await vms.engine.snapshots.checkpoint("one", { stop: true }, soon());
    await vms.engine.snapshots.resume("one", soon());
    vms = await vms.reopen();
    await vms.engine.refreshVm("one", soon());
    expect(goOnOneByOne(await numbersOf(vms, "one", 20))).toBe(true);
  });

  test("a VM that has ended, or whose QEMU ends meanwhile, says so", async () => {
    const vm = await vms.start({ memoryBytes, name: "gone" });
    const refreshed = rejection(vms.engine.refreshVm("gone", soon()));
    process.kill(vm.pid ?? 0, "SIGKILL");
    expect(["qemu_exited", "vm_not_running", "not_capturable", "agent_not_ready"]).toContain((await refreshed).code);
    await vms.engine.waitVm("gone", AbortSignal.timeout(10_000));
    expect((await rejection(vms.engine.refreshVm("gone", soon()))).code).toBe("vm_not_running");
  });
});
