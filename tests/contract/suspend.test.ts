/** Suspended VMs: no QEMU, and all that makes them what they are; whatever needs them brings them back. */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { AgentClient } from "../../src/agent/client.ts";
import { MayflyError } from "../../src/contract/errors.ts";
import { Records } from "../../src/engine/records.ts";
import { askService, buildService, serviceImage } from "../support/application.ts";
import { COUNTER, goOnOneByOne, numbersOf } from "../support/counting.ts";
import { Output, soon, TestEngine } from "../support/engine.ts";
import { describeVms } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";
import { rejection } from "../support/fake-peer.ts";

/** Resumed from their saved state, and from process images. */
const WAYS = [
  { way: "", options: { processImages: false } },
  { way: ", with process images", options: { processImages: true } },
];

for (const { way, options } of WAYS)
  describeVms(`suspended VMs${way}`, () => {
    let vms: TestEngine;

    beforeAll(async () => {
      vms = await TestEngine.open(options);
      await vms.remove((await vms.start()).id);
      // Its template has a process image then, if it is to have one.
      if (options.processImages) await vms.untilImage({});
      vms.markDescriptors();
    }, 90_000);
    afterAll(() => vms?.[Symbol.asyncDispose]());
    afterEach(async () => {
      for (const vm of vms.engine.listVms()) await vms.remove(vm.id);
      expect(vms.engine.snapshots.list()).toEqual([]);
      expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
    });

    const suspend = (ref: string) => vms.engine.snapshots.checkpoint(ref, { stop: true }, soon());

    test("come back with identity, name and logs; nothing is lost or doubled", async () => {
      const { snapshots } = vms.engine;
      const vm = await vms.start({ command: COUNTER, name: "counter" });
      await numbersOf(vms, "counter", 5);
      const machineId = await vms.shell("counter", "cat /etc/machine-id");
      for (let round = 0; round < 3; round++) {
        const snapshot = await suspend("counter");
        const suspended = vms.engine.getVm("counter");
        expect(suspended).toMatchObject({ state: "suspended", pid: null, suspendedIn: snapshot.id, id: vm.id });
        expect(await vms.processes(0)).toEqual([]);
        const resumed = await snapshots.resume("counter", soon());
        expect(resumed).toMatchObject({
          state: "running",
          suspendedIn: null,
          name: "counter",
          startedAt: vm.startedAt,
        });
        expect(snapshots.list()).toEqual([]);
      }
      const before = vms.engine.getVm("counter");
      expect(await snapshots.resume("counter", soon())).toEqual(before);
      expect(goOnOneByOne(await numbersOf(vms, "counter", 40))).toBe(true);
      expect(await vms.shell("counter", "cat /etc/machine-id")).toBe(machineId);
    });

    test("a return that fails changes nothing, not even by what was printed meanwhile", async () => {
      const { snapshots } = vms.engine;
      await vms.start({ command: ["sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; done"], name: "counter" });
      await numbersOf(vms, "counter", 5);
      await suspend("counter");
      const put = Records.prototype.putVm;
      const { thaw } = AgentClient.prototype;
      try {
        // Something has been printed by then.
        AgentClient.prototype.thaw = async function (...rest) {
          await thaw.call(this, ...rest);
          await Bun.sleep(50);
        };
        Records.prototype.putVm = function (record) {
          if (record.vm.state === "running") throw new MayflyError("disk_full", "Cannot record a VM: no space");
          put.call(this, record);
        };
        for (let time = 0; time < 5; time++)
          expect((await rejection(snapshots.resume("counter", soon()))).code).toBe("disk_full");
      } finally {
        Records.prototype.putVm = put;
        AgentClient.prototype.thaw = thaw;
      }
      await snapshots.resume("counter", soon());
      await vms.shell("counter", "echo on");
      await suspend("counter");
      let text = "";
      for await (const { chunk } of vms.engine.logs("counter", { follow: false, signal: AbortSignal.timeout(20_000) }))
        text += Buffer.from(chunk).toString();
      expect(goOnOneByOne(text.split("\n").slice(0, -1).map(Number))).toBe(true);
    });

    test("an exec brings one back, and so do ten at once, together", async () => {
      await vms.start({ command: COUNTER, name: "counter" });
      await suspend("counter");
      const texts = await Promise.all(Array.from({ length: 10 }, (_, n) => vms.shell("counter", `echo ${n}`)));
      expect(texts).toEqual(Array.from({ length: 10 }, (_, n) => String(n)));
      expect(vms.engine.info().vms).toBe(1);
    });

    test("what is asked of one at the same time is done before or after; to suspend it twice is to suspend it", async () => {
      const { snapshots } = vms.engine;
      await vms.start({ command: COUNTER, name: "counter" });
      await numbersOf(vms, "counter", 3);
      const [first, second] = await Promise.all([suspend("counter"), suspend("counter")]);
      expect(second.id).toBe(first.id);
      expect((await suspend("counter")).id).toBe(first.id);
      const kept = await snapshots.checkpoint("counter", { name: "kept" }, soon());
      expect(vms.engine.getVm("counter").state).toBe("running");
      const checkpoint = (name: string) => snapshots.checkpoint("counter", { name }, soon());
      const [, , forked] = await Promise.all([
        suspend("counter"),
        checkpoint("one"),
        snapshots.fork("counter", { namePrefix: "child" }, soon()),
        suspend("counter"),
        checkpoint("two"),
      ]);
      expect(await vms.shell(forked.vmIds[0] ?? "", "hostname")).toBe("child");
      expect(goOnOneByOne(await numbersOf(vms, "counter", 40))).toBe(true);
      for (const name of [kept.id, "one", "two"]) await snapshots.remove(name);
      await vms.engine.stopVm("counter", 0, soon());
      const ended = await rejection(snapshots.checkpoint("counter", {}, soon()));
      expect(ended.message).toBe("Cannot checkpoint VM counter: it is exited");
    });

    test("a daemon that starts finds them, and brings them back", async () => {
      await vms.start({ command: COUNTER, name: "counter" });
      await suspend("counter");
      vms = await vms.reopen(options);
      expect(vms.engine.getVm("counter").state).toBe("suspended");
      expect(await vms.shell("counter", "echo back")).toBe("back");
      expect(goOnOneByOne(await numbersOf(vms, "counter", 20))).toBe(true);
      vms = await vms.reopen(options);
      expect(goOnOneByOne(await numbersOf(vms, "counter", 60))).toBe(true);
    });

    test("one that is removed or killed takes its snapshot along", async () => {
      await vms.start({ command: COUNTER, name: "one" });
      await suspend("one");
      expect(await vms.engine.killVm("one", 9, soon())).toMatchObject({
        state: "exited",
        exitCode: 137,
        suspendedIn: null,
      });
      expect(vms.engine.snapshots.list()).toEqual([]);
      await vms.start({ command: COUNTER, name: "two" });
      await suspend("two");
      await vms.remove("two");
    });

    test("a web service answers the next connection, which is its first sign of life", async () => {
      const image = await serviceImage(vms);
      await buildService(vms, { name: "web", image });
      const vm = await vms.start({ template: "web", ports: [{ hostPort: 0, guestPort: 8080 }] });
      const port = vm.ports[0]?.hostPort ?? 0;
      expect((await askService(vms, vm)).host).toBe(vm.hostname);
      await suspend(vm.id);
      const answers = await Promise.all(
        Array.from({ length: 3 }, () => fetch(`http://127.0.0.1:${port}/`).then((answer) => answer.status)),
      );
      expect(answers.every((status) => status < 500)).toBe(true);
      expect(vms.engine.getVm(vm.id).state).toBe("running");
      expect((await askService(vms, vm)).host).toBe(vm.hostname);
    });

    test("disks come along: what is written to a volume and to scratch is there, over a restart of the daemon too", async () => {
      const image = await serviceImage(vms);
      const volumes = [{ source: { volume: "data" }, target: "/data" }];
      const vm = await vms.start({
        image,
        command: ["/bin/main"],
        volumes,
        diskBytes: 64 << 20,
        pull: "never",
        name: "disks",
      });
      await vms.shell("disks", "echo one > /data/file; echo one > /scratch-file");
      const snapshot = await suspend("disks");
      const taken = await rejection(vms.start({ image, command: ["/bin/main"], volumes, pull: "never" }));
      expect(taken.code).toBe("resource_in_use");
      expect((await rejection(vms.start({ snapshot: snapshot.id }))).code).toBe("not_capturable");
      vms = await vms.reopen(options);
      expect(
        await vms.shell("disks", "cat /data/file /scratch-file; echo two >> /data/file; echo two >> /scratch-file"),
      ).toBe("one\none");
      await suspend("disks");
      await vms.engine.snapshots.resume("disks", soon());
      expect(await vms.shell("disks", "cat /data/file /scratch-file")).toBe("one\ntwo\none\ntwo");
      expect(vms.engine.getVm("disks").id).toBe(vm.id);
      await vms.remove("disks");
      await vms.engine.removeVolume("data");
      vms.markDescriptors();
    });

    test("whoever is attached is told; logs that are followed go on", async () => {
      const { process } = await vms.engine.createVm(
        { command: COUNTER, name: "c" },
        { deadline: soon(), sink: new Output() },
      );
      const followed = numbersOf(vms, "c", 30);
      const ended = process?.exited.catch((error: unknown) => error);
      await suspend("c");
      expect(await ended).toMatchObject({ code: "vm_not_running", message: "VM c was suspended" });
      await vms.engine.snapshots.resume("c", soon());
      expect(goOnOneByOne(await followed)).toBe(true);
    });
  });
