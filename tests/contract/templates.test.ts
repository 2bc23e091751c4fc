/** Templates: built once, trimmed, verified, never changed by clones, removed only when nobody needs them. */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { statSync } from "node:fs";
import { join } from "node:path";
import { withTimersDelayed } from "../../src/machine/saved-timers.ts";
import { QmpClient } from "../../src/qmp/client.ts";
import { readBytes } from "../../src/sys/paths.ts";
import { soon, TestEngine } from "../support/engine.ts";
import { describeVms } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";
import { rejection } from "../support/fake-peer.ts";

describeVms("a template", () => {
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

  const first = () => {
    const [template] = vms.engine.listTemplates();
    if (template === undefined) throw new Error("there is no template");
    return template;
  };
  const verified = async () => (await vms.engine.verifyTemplate(first().id, soon())).problems;

  test("fits this host, is small on disk, and nobody but its tenant's group reads it", () => {
    const { id, compatible, memory, shape, deviceStateBytes } = first();
    expect({ compatible, shape }).toEqual({ compatible: true, shape: { memoryMiB: 128, vcpus: 1 } });
    expect(memory.sizeBytes).toBe(128 << 20);
    expect(memory.allocatedBytes).toBeLessThan(110 << 20);
    expect(deviceStateBytes).toBeLessThan(64 << 10);
    const directory = join(vms.stateDir, "templates", id);
    const mode = (name: string) => {
      const { mode, uid, gid } = statSync(join(directory, name));
      return `${(mode & 0o7777).toString(8)} ${uid} ${gid}`;
    };
    expect(mode("memory")).toBe("440 0 900000");
    expect(mode("device-state")).toBe("400 0 0");
    expect(mode("manifest.json")).toBe("444 0 0");
  });

  test("has the timer of its CPU in its saved devices, where it is found and put off for clones", async () => {
    const saved = await readBytes(join(vms.stateDir, "templates", first().id, "device-state"));
    const later = withTimersDelayed(saved, 10n ** 12n);
    expect(later).not.toEqual(saved);
    expect(withTimersDelayed(later, 10n ** 11n)).toBe(later);
  });

  test("has programs whose pages a fault maps many at a time, also after its caches were dropped", async () => {
    const vm = await vms.start();
    const mappedKiB = async () =>
      Number(await vms.shell(vm.id, "grep -A5 r-xp /proc/self/smaps | awk '/Rss/ { print $2; exit }'"));
    // Of 1.5 MiB; some 230 KiB where each page has a fault of its own.
    expect(await mappedKiB()).toBeGreaterThan(600);
    await vms.engine.refreshVm(vm.id, soon());
    expect(await mappedKiB()).toBeGreaterThan(600);
  });

  test("is sound, also while clones run", async () => {
    expect(await verified()).toEqual([]);
    const vm = await vms.start();
    expect(await verified()).toEqual([]);
    await vms.remove(vm.id);
  });

  test("does not change when clones write all their memory, free it, and discard what they can", async () => {
    const script = `
      dd if=/dev/urandom of=/dev/shm/x bs=1M count=90 2>/dev/null
      rm -f /dev/shm/x; sync; echo 3 > /proc/sys/vm/drop_caches; echo 1 > /proc/sys/vm/compact_memory
      for disk in /dev/vd*; do blkdiscard $disk 2>/dev/null; dd if=/dev/urandom of=$disk bs=1M count=1 2>/dev/null; done
      fstrim -v / 2>/dev/null; tail /dev/zero; echo over
    `;
    const vm = await vms.start();
    await vms.exec(vm.id, ["mount", "-t", "tmpfs", "shm", "/dev/shm"]);
    expect(await vms.shell(vm.id, script)).toBe("over");
    const stats = await vms.engine.statsVm(vm.id, soon());
    expect(stats.guestUniqueMemoryBytes).toBeGreaterThan(20 << 20);
    expect(await verified()).toEqual([]);
  });

  test("does not change when QEMU is told to discard memory", async () => {
    const vm = await vms.start();
    const slot = /\/q(\d+)$/m.exec(await Bun.file(`/proc/${vm.pid}/cgroup`).text())?.[1];
    const qmp = await QmpClient.connect(join(vms.runDir, "q", slot ?? "", "qmp"), soon());
    const refused = async (command: string, args: Record<string, unknown>) =>
      (await rejection(qmp.execute(command, args, soon()))).code;
    expect(await refused("balloon", { value: 64 << 20 })).toBe("qmp_command_failed");
    expect(await refused("qom-set", { path: "/objects/memory", property: "share", value: true })).toBe(
      "qmp_command_failed",
    );
    await qmp.execute("qom-set", { path: "/objects/memory", property: "discard-data", value: true }, soon());
    await Promise.allSettled([qmp.execute("quit", undefined, soon())]);
    expect((await vms.engine.waitVm(vm.id, AbortSignal.timeout(10_000))).state).toBe("failed");
    expect(await verified()).toEqual([]);
    expect(await vms.script("echo fine")).toBe("fine");
  });

  test("is built once, however many ask for it at once", async () => {
    await using empty = await TestEngine.open({ templates: [] });
    const built: string[] = [];
    empty.engine.subscribe(({ type, id }) => type === "template.built" && built.push(id));
    const steps: string[] = [];
    const [template, again, { vm, stdout }] = await Promise.all([
      empty.engine.buildTemplate({ name: "base" }, { deadline: soon(), onProgress: (step) => steps.push(step) }),
      empty.engine.buildTemplate({}, { deadline: soon() }),
      empty.run(["echo", "built for me"]),
    ]);
    expect(built).toEqual([template.id]);
    expect([again.id, vm.templateId]).toEqual([template.id, template.id]);
    expect(stdout).toBe("built for me\n");
    expect(steps.length).toBeGreaterThanOrEqual(4);
    expect(empty.engine.getTemplate("base").id).toBe(template.id);
    expect(await empty.leftBehind()).toEqual(NOTHING_LEFT);
  });

  test("is not removed while a VM runs on it, unless forced; the VM goes on, for the next engine too", async () => {
    await using own = await TestEngine.open();
    const [template] = own.engine.listTemplates();
    const id = template?.id ?? "";
    const vm = await own.start();
    expect((await rejection(own.engine.removeTemplate(id, { force: false }))).code).toBe("resource_in_use");
    expect(own.engine.listTemplates().length).toBe(1);
    await own.engine.removeTemplate(id, { force: true });
    expect(own.engine.listTemplates()).toEqual([]);
    expect(await own.shell(vm.id, "dd if=/dev/zero of=/tmp/x bs=1M count=20 2>/dev/null; wc -c < /tmp/x")).toBe(
      "20971520",
    );
    await using next = await own.reopen();
    expect(next.engine.getVm(vm.id)).toMatchObject({ state: "running", error: null });
    expect(await next.shell(vm.id, "echo adopted")).toBe("adopted");
    expect((await next.engine.statsVm(vm.id, soon())).uniqueMemoryBytes).toBeGreaterThan(20 << 20);
    await next.remove(vm.id);
    expect(await next.leftBehind()).toEqual(NOTHING_LEFT);
  });

  test("whose pool is asked to go is kept with its pool when a VM runs on it", async () => {
    await using own = await TestEngine.open({ pool: { blocked: 1, warm: 0, parent: false } });
    const vm = await own.start({ pool: false });
    const [template] = own.engine.listTemplates();
    expect((await rejection(own.engine.removeTemplate(template?.id ?? "", { force: false }))).code).toBe(
      "resource_in_use",
    );
    expect(own.engine.info().pools).toMatchObject([{ blocked: 1, warm: 0 }]);
    await own.remove(vm.id);
    await own.engine.removeTemplate(template?.id ?? "", { force: false });
    await own.processes(0);
    expect(own.engine.info().pools).toEqual([]);
  });

  test("build ends with its engine", async () => {
    const own = await TestEngine.open({ templates: [] });
    const building = rejection(own.engine.buildTemplate({}, { deadline: soon() }));
    await own.processes(1);
    await own.close();
    expect((await building).code).toBe("cancelled");
    await own.processes(0);
  });

  test("build can be cancelled", async () => {
    await using own = await TestEngine.open({ templates: [] });
    const { Deadline } = await import("../../src/sys/deadline.ts");
    const cancelling = new AbortController();
    const deadline = Deadline.after(60_000, cancelling.signal);
    const building = rejection(own.engine.buildTemplate({}, { deadline }));
    await own.processes(1);
    cancelling.abort();
    expect((await building).code).toBe("cancelled");
    expect(await own.leftBehind()).toEqual(NOTHING_LEFT);
  });
});
