/** Device profiles over real QEMU: each VM has the devices that it asks for, or those of a template that is there, and works with them. */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { CreateVmRequest, Vm } from "../../src/contract/api.ts";
import { soon, TestEngine } from "../support/engine.ts";
import { describeVms, newDirectory, SMALL } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";
import { rejection } from "../support/fake-peer.ts";
import { rootTree, tarballOf } from "../support/rootfs.ts";

/** Counts the devices that the guest has found. */
const DEVICES = "ls /sys/bus/virtio/devices | wc -l";

describeVms("device profiles", () => {
  let vms: TestEngine;
  beforeAll(async () => {
    const templates = (["exec", "disk"] as const).map((profile) => ({ ...SMALL, profile }));
    vms = await TestEngine.open({ templates });
    await vms.engine.importImage({ name: "box", path: await tarballOf(await rootTree()) }, { deadline: soon() });
  }, 120_000);
  afterAll(() => vms?.[Symbol.asyncDispose]());
  afterEach(async () => {
    for (const vm of vms.engine.listVms()) await vms.remove(vm.id);
    expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
  });

  const profileOf = (vm: Vm) => vms.engine.getTemplate(vm.templateId).profile;
  const start = (request: Partial<CreateVmRequest> = {}) => vms.start(request);

  test("are as small as what a VM asks for, and a guest finds just these devices", async () => {
    const plain = await start({ name: "plain" });
    expect([profileOf(plain), await vms.shell("plain", DEVICES)]).toEqual(["exec", "1"]);
    const image = await start({ name: "image", rootfs: "box", command: ["sleep", "1000"] });
    expect([profileOf(image), await vms.shell("image", DEVICES)]).toEqual(["disk", "3"]);
    const scratch = await start({ rootfs: "box", command: ["sleep", "1000"], diskBytes: 64 << 20 });
    expect(profileOf(scratch)).toBe("disk");
    const stats = await Promise.all([plain, image].map(({ id }) => vms.engine.statsVm(id, soon())));
    expect(stats[0]?.qemuMemoryBytes).toBeLessThan(stats[1]?.qemuMemoryBytes ?? 0);
  });

  test("of one are its copies', whatever becomes of it", async () => {
    await start({ name: "plain", command: ["sh", "-c", "echo hi >/tmp/word; exec sleep 1000"] });
    await vms.shell("plain", "until [ -s /tmp/word ]; do usleep 10000; done");
    const { vmIds } = await vms.engine.snapshots.fork("plain", { namePrefix: "child" }, soon());
    expect(profileOf(vms.engine.getVm(vmIds[0] ?? ""))).toBe("exec");
    const { id } = await vms.engine.snapshots.checkpoint("child", {}, soon());
    const clone = await start({ snapshot: id, name: "clone" });
    expect([profileOf(clone), await vms.shell("clone", "cat /tmp/word")]).toEqual(["exec", "hi"]);
    await vms.engine.snapshots.checkpoint("plain", { stop: true }, soon());
    expect(await vms.shell("plain", "cat /tmp/word")).toBe("hi");
    await vms.remove("clone");
    await vms.engine.snapshots.remove(id);
  });

  test("with more than is asked for serve before another is built", async () => {
    const before = vms.engine.listTemplates().length;
    const none = await vms.start({
      name: "volumes",
      rootfs: "box",
      command: ["sleep", "1000"],
      volumes: [volume("v")],
    });
    expect([profileOf(none), await vms.shell("volumes", DEVICES)]).toEqual(["full", "8"]);
    expect(vms.engine.listTemplates().length).toBe(before + 1);
    const exec = vms.engine.listTemplates().find(({ profile }) => profile === "exec");
    await vms.engine.removeTemplate(exec?.id ?? "", { force: false });
    expect(profileOf(await start())).toBe("disk");
    await vms.remove("volumes");
    await vms.engine.removeVolume("v");
  });

  test("of a template that is asked for by name must have what the VM needs", async () => {
    const built = await vms.engine.buildTemplate({ name: "tiny", profile: "exec" }, { deadline: soon() });
    expect(built.profile).toBe("exec");
    const error = await rejection(start({ template: "tiny", rootfs: "box", command: ["true"] }));
    expect(error).toMatchObject({ code: "invalid_argument" });
    expect(error.message).toContain("it has the device profile exec, and this needs disk");
    expect(profileOf(await start({ template: "tiny" }))).toBe("exec");
  });

  test("have pools of their own, in which a VM takes what has all that it asks for", async () => {
    const [exec] = vms.engine.listTemplates().filter(({ profile }) => profile === "exec");
    await vms.engine.resizePool(exec?.id ?? "", { warm: 1, blocked: 1, parent: false });
    await vms.poolsFull();
    const paths = [await start(), await start(), await start({ rootfs: "box", command: ["sleep", "1000"] })];
    expect(paths.map((vm) => `${vm.clone.path} ${profileOf(vm)}`)).toEqual(["warm exec", "pool exec", "cold disk"]);
    await vms.engine.resizePool(exec?.id ?? "", { warm: 0, blocked: 0 });
  });

  test("that an image's directory needs are full", async () => {
    const directory = newDirectory("shared");
    writeFileSync(join(directory, "word"), "hi");
    const source = { directory };
    const vm = await start({
      rootfs: "box",
      command: ["sleep", "1000"],
      volumes: [{ source, target: "/x", readOnly: true }],
    });
    expect([profileOf(vm), await vms.shell(vm.id, "cat /x/word")]).toEqual(["full", "hi"]);
  });
});

function volume(name: string) {
  return { source: { volume: name }, target: "/data" };
}
