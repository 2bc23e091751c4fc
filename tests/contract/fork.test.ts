/** Live fork: children go on from where their parent stood, each with an identity of its own; the parent goes on as it was. */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import type { ForkRequest, Vm } from "../../src/contract/api.ts";
import { askService, buildService, serviceImage } from "../support/application.ts";
import { COUNTER, goOnOneByOne, numbersOf } from "../support/counting.ts";
import { Output, soon, TestEngine } from "../support/engine.ts";
import { describeVms } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";
import { rejection } from "../support/fake-peer.ts";

/** By copies of the parent's process, and by its state in other QEMUs. */
const WAYS = [
  { way: "by copies", isCopied: true, pool: { blocked: 0, warm: 0 } },
  { way: "by saved states", isCopied: false, pool: { blocked: 0, warm: 0, parent: false } },
];

for (const { way, isCopied, pool } of WAYS)
  describeVms(`live fork ${way}`, () => {
    let vms: TestEngine;

    beforeAll(async () => {
      vms = await TestEngine.open({ pool });
      await vms.remove((await vms.start()).id);
      vms.markDescriptors();
    }, 90_000);
    afterAll(() => vms?.[Symbol.asyncDispose]());
    afterEach(async () => {
      for (const vm of vms.engine.listVms()) await vms.remove(vm.id);
      for (const { name } of vms.engine.listVolumes()) await vms.engine.removeVolume(name);
      expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
    });

    /** Forks a VM. @returns its children. */
    const fork = async (ref: string, request: ForkRequest = {}): Promise<Vm[]> => {
      const { vmIds, times, deltaBytes } = await vms.engine.snapshots.fork(ref, request, soon());
      expect(times.stoppedMs).toBeGreaterThanOrEqual(times.vcpuStoppedMs);
      expect(times.durableMs).toBeNull();
      const children = vmIds.map((id) => vms.engine.getVm(id));
      const hasDisk = request.namePrefix === "with-disk";
      expect(deltaBytes > 0).toBe(!isCopied || hasDisk);
      for (const child of children) expect(child.clone.path === "copy").toBe(isCopied && !hasDisk);
      return children;
    };
    const only = async (ref: string, request: ForkRequest = {}): Promise<Vm> => {
      const [child] = await fork(ref, request);
      if (child === undefined) throw new Error("there is no child");
      return child;
    };

    test("a counter goes on in all of them from where it stood; parent's log and child's are one", async () => {
      const parent = await vms.start({ command: COUNTER, name: "parent", labels: { a: "b" } });
      await numbersOf(vms, "parent", 5);
      const children = await fork("parent", { count: 3, namePrefix: "child" });
      expect(children.map(({ name }) => name)).toEqual(["child-1", "child-2", "child-3"]);
      for (const child of children) {
        expect(child).toMatchObject({
          state: "running",
          restart: { name: "no" },
          labels: { a: "b" },
          hostname: child.name,
        });
        expect(child.origin).toEqual({ kind: "fork", id: parent.id, name: "parent" });
        const numbers = await numbersOf(vms, child.id, 10);
        expect(numbers[0]).toBeGreaterThan(5);
        expect(goOnOneByOne(numbers)).toBe(true);
        expect(await vms.shell(child.id, "hostname")).toBe(child.name);
      }
      const first = await Promise.all(children.map(({ id }) => numbersOf(vms, id, 1)));
      expect(new Set(first.flat()).size).toBe(1);
      expect(goOnOneByOne(await numbersOf(vms, "parent", 60))).toBe(true);
      const ids = [parent, ...children].map(({ id }) =>
        vms.shell(id, "cat /etc/machine-id /proc/sys/kernel/random/uuid"),
      );
      expect(new Set((await Promise.all(ids)).flatMap((text) => text.split("\n"))).size).toBe(8);
    });

    test("ten generations deep; each lives on when its parent is killed", async () => {
      let last = await vms.start({ command: COUNTER });
      let before = 0;
      for (let generation = 0; generation < 10; generation++) {
        const child = await only(last.id);
        await vms.remove(last.id);
        const [first = 0, ...others] = await numbersOf(vms, child.id, 3);
        expect(first).toBeGreaterThan(before);
        expect(goOnOneByOne([first, ...others])).toBe(true);
        before = first;
        last = child;
      }
      expect(last.templateId).toBe(vms.engine.listTemplates()[0]?.id ?? "");
      expect(vms.engine.info().vms).toBe(1);
    });

    test("clocks: the monotonic one goes on without a jump, the other is right", async () => {
      const parent = await vms.start();
      const uptime = async (ref: string) => Number((await vms.shell(ref, "cut -d' ' -f1 /proc/uptime")).trim());
      const before = await uptime(parent.id);
      const child = await only(parent.id);
      const [after, inChild] = [await uptime(parent.id), await uptime(child.id)];
      expect(inChild).toBeGreaterThanOrEqual(before);
      expect(inChild - after).toBeLessThan(2);
      for (const { id } of [parent, child]) {
        expect(Math.abs(Number(await vms.shell(id, "date +%s")) - Date.now() / 1000)).toBeLessThan(3);
      }
    });

    test("an application that serves: children answer on ports of their own, hooks have run, connections are new", async () => {
      const hook = '#!/bin/sh\necho "$MAYFLY_EVENT on $(hostname)" >> /tmp/hooks\n';
      const image = await serviceImage(vms, { "etc/mayfly/post-clone.d/10-tell": hook });
      await buildService(vms, { name: "web", image });
      const ports = [{ hostPort: 0, guestPort: 8080 }];
      for (const request of [
        { template: "web", ports },
        { image, command: ["/bin/main"], ports, pull: "never" as const },
      ]) {
        const parent = await vms.start(request);
        const output = new Output();
        if ("image" in request) {
          vms.engine.attach(parent.id, output, { logs: true });
          await output.has("serving on");
        }
        const children = await fork(parent.id, { count: 2 });
        const answers = await Promise.all([parent, ...children].map((vm) => askService(vms, vm)));
        expect(answers.map(({ host }) => host)).toEqual([parent, ...children].map(({ hostname }) => hostname));
        expect(new Set(answers.map(({ random }) => random)).size).toBe(3);
        const published = children.map((child) => child.ports[0]);
        expect(new Set([parent.ports[0], ...published].map((port) => port?.hostPort)).size).toBe(3);
        for (const port of published) {
          expect(await (await fetch(`http://127.0.0.1:${port?.hostPort}/`)).text()).toBe("hello\n");
        }
        expect(await vms.shell(children[0]?.id ?? "", "cat /tmp/hooks")).toEndWith(`fork on ${children[0]?.hostname}`);
        const stopped = await vms.engine.stopVm(children[0]?.id ?? "", 5_000, soon());
        expect(stopped).toMatchObject({ state: "exited", exitCode: 7 });
        for (const vm of [parent, ...children]) await vms.remove(vm.id);
      }
      await vms.engine.removeTemplate("web", { force: false });
    });

    test("while exec streams: the client misses nothing; in the child it goes on, and nobody has to read it", async () => {
      const parent = await vms.start({ name: "parent" });
      const output = new Output();
      const script = "n=0; while [ $n -lt 3000 ]; do n=$((n + 1)); echo $n; done; echo end > /tmp/ended";
      const session = await vms.engine.exec(parent.id, { command: ["/bin/sh", "-c", script] }, output, soon());
      await output.has("100\n");
      const child = await only(parent.id);
      expect((await session.exited).exitCode).toBe(0);
      const numbers = output.stdout.split("\n").slice(0, -1).map(Number);
      expect(numbers.length).toBe(3000);
      expect(goOnOneByOne(numbers)).toBe(true);
      expect(await vms.shell(child.id, "until [ -e /tmp/ended ]; do usleep 10000; done; cat /tmp/ended")).toBe("end");
    });

    test("an exec that comes while it stands still waits for that", async () => {
      const parent = await vms.start({ command: COUNTER });
      const forked = fork(parent.id);
      const texts = await Promise.all(Array.from({ length: 8 }, (_, n) => vms.shell(parent.id, `echo ${n}`)));
      expect(texts).toEqual(Array.from({ length: 8 }, (_, n) => String(n)));
      await forked;
    });

    test("two forks at once, and forks of VMs whose main process has a terminal or none", async () => {
      const parent = await vms.start({ name: "parent" });
      const both = await Promise.all([fork("parent", { count: 2 }), fork("parent", { count: 2, autoRemove: true })]);
      expect(both.flat().map(({ autoRemove }) => autoRemove)).toEqual([false, false, true, true]);
      expect(new Set(both.flat().map(({ name }) => name)).size).toBe(4);
      for (const child of both.flat()) expect(await vms.shell(child.id, "hostname")).toBe(child.hostname);
      expect(await vms.shell(parent.id, "hostname")).toBe("parent");
      const terminal = { rows: 24, columns: 80 };
      const shell = await vms.start({ command: ["/bin/sh"], terminal, stdin: true });
      const child = await only(shell.id);
      const output = new Output();
      const session = vms.engine.attach(child.id, output, { logs: false });
      await session.write(Buffer.from("echo sum $((40 + 2))\n"));
      await output.has("sum 42");
    });

    test("a daemon that has adopted a VM forks it", async () => {
      await vms.start({ command: COUNTER, name: "parent" });
      vms = await vms.reopen({ pool });
      const child = await only("parent");
      vms = await vms.reopen({ pool });
      expect(goOnOneByOne(await numbersOf(vms, child.id, 20))).toBe(true);
      const grandchild = await only(child.id);
      expect(await vms.shell(grandchild.id, "hostname")).toBe(grandchild.hostname);
      vms.markDescriptors();
    });

    test("a scratch disk is copied as it was", async () => {
      const image = await serviceImage(vms);
      const parent = await vms.start({ image, command: ["/bin/main"], diskBytes: 64 << 20, pull: "never" });
      await vms.shell(parent.id, "head -c 500000 /dev/urandom > /blob; echo parent > /who");
      const sum = await vms.shell(parent.id, "busybox sha256sum /blob");
      const children = await fork(parent.id, { count: 2, namePrefix: "with-disk" });
      await vms.shell(parent.id, "echo changed > /who; rm /blob");
      for (const child of children) {
        expect(await vms.shell(child.id, "busybox sha256sum /blob; cat /who")).toBe(`${sum}\nparent`);
        await vms.shell(child.id, "echo child > /who; sync");
      }
      expect(await vms.shell(parent.id, "cat /who")).toBe("changed");
    });

    test("what cannot be forked is refused with the reason, and nothing is left", async () => {
      const image = await serviceImage(vms);
      const volumes = [{ source: { volume: "data" }, target: "/data" }];
      const vm = await vms.start({ image, command: ["/bin/main"], volumes, pull: "never", name: "owner" });
      const refused = await rejection(vms.engine.snapshots.fork("owner", { count: 2 }, soon()));
      expect(refused).toMatchObject({ code: "not_capturable", vmId: vm.id });
      expect(refused.message).toStartWith("Cannot fork VM owner: volume data is its own");
      const checkpoint = await rejection(vms.engine.snapshots.checkpoint("owner", {}, soon()));
      expect(checkpoint.code).toBe("not_capturable");
      const other = await vms.start({ name: "other" });
      await vms.start({ name: "taken-2" });
      const named = await rejection(vms.engine.snapshots.fork("other", { count: 3, namePrefix: "taken" }, soon()));
      expect(named.code).toBe("name_in_use");
      const long = await rejection(
        vms.engine.snapshots.fork("other", { count: 3, namePrefix: "x".repeat(62) }, soon()),
      );
      expect(long.code).toBe("invalid_argument");
      expect(vms.engine.listVms().length).toBe(3);
      await vms.engine.removeTemplate(other.templateId, { force: true });
      const gone = await rejection(vms.engine.snapshots.fork("other", {}, soon()));
      expect(gone).toMatchObject({ code: "template_not_found" });
      expect(gone.message).toContain("was removed");
    });
  });
