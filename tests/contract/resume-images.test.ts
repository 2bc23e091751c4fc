/** Suspended VMs that go on from a process image: as the QEMU that they were, with the same promises as those whose state is loaded, which is what happens otherwise. */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { existsSync, readFileSync, rmSync, truncateSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { ClonePath, Vm } from "../../src/contract/api.ts";
import { serviceImage } from "../support/application.ts";
import { COUNTER, goOnOneByOne, numbersOf } from "../support/counting.ts";
import { soon, TestEngine } from "../support/engine.ts";
import { describeVms } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";

const OPTIONS = { pool: { blocked: 1, warm: 0, parent: true } };
const HASH = "sha256sum < /tmp/random";

describeVms("VMs that are resumed from a process image", () => {
  let vms: TestEngine;

  beforeAll(async () => {
    vms = await TestEngine.open(OPTIONS);
    await vms.poolsFull();
    vms.markDescriptors();
  });
  afterAll(() => vms?.[Symbol.asyncDispose]());
  afterEach(async () => {
    for (const vm of vms.engine.listVms()) await vms.remove(vm.id);
    for (const { id } of vms.engine.snapshots.list()) await vms.engine.snapshots.remove(id);
    await vms.poolsFull();
    expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
  });

  const suspend = (ref: string) => vms.engine.snapshots.checkpoint(ref, { stop: true }, soon());
  const resume = (ref: string) => vms.engine.snapshots.resume(ref, soon());
  const imageOf = (snapshotId: string) => join(vms.stateDir, "snapshots", snapshotId, "process-image");
  /** A VM with two MiB of its own, and their hash. */
  const startOnPath = async (path: ClonePath, pool: boolean): Promise<{ vm: Vm; hash: string }> => {
    const vm = await vms.start({ command: COUNTER, name: path, pool });
    expect(vm.clone.path).toBe(path);
    return { vm, hash: await vms.shell(vm.id, `head -c 2097152 /dev/urandom > /tmp/random; ${HASH}`) };
  };

  for (const [path, pool] of [
    ["image", false],
    ["copy", true],
  ] as const) {
    test(`of path ${path} have their memory and go on counting, time and again`, async () => {
      const { vm, hash } = await startOnPath(path, pool);
      for (let round = 0; round < 4; round++) {
        const { id } = await suspend(vm.id);
        expect(existsSync(join(imageOf(id), "about.json"))).toBe(true);
        const resumed = await resume(vm.id);
        expect(resumed).toMatchObject({ state: "running", clone: { path: "image" }, startedAt: vm.startedAt });
        expect(await vms.shell(vm.id, HASH)).toBe(hash);
        if (round % 2 === 1) await vms.shell(vm.id, `head -c 300000 /dev/urandom > /tmp/other-${round}`);
      }
      expect(goOnOneByOne(await numbersOf(vms, vm.id, 30))).toBe(true);
      expect(vms.engine.snapshots.list()).toEqual([]);
    });
  }

  test("share with their template what they have not written, and are forked and checkpointed like others", async () => {
    const { vm, hash } = await startOnPath("image", false);
    await suspend(vm.id);
    await resume(vm.id);
    const { uniqueMemoryBytes, sharedMemoryBytes } = await vms.engine.statsVm(vm.id, soon());
    expect(uniqueMemoryBytes).toBeLessThan(16 << 20);
    expect(sharedMemoryBytes).toBeGreaterThan(2 << 20);
    const { vmIds } = await vms.engine.snapshots.fork(vm.id, { count: 2 }, soon());
    const kept = await vms.engine.snapshots.checkpoint(vm.id, {}, soon());
    const { vm: clone } = await vms.engine.createVm({ snapshot: kept.id }, { deadline: soon() });
    for (const id of [vm.id, ...vmIds, clone.id]) expect(await vms.shell(id, HASH)).toBe(hash);
    await suspend(vmIds[0] ?? "");
    expect(await vms.shell(vmIds[0] ?? "", HASH)).toBe(hash);
  });

  test("are cloned from the snapshot that they wait in, each with an identity of its own", async () => {
    const { vm, hash } = await startOnPath("image", false);
    const { id: snapshot } = await suspend(vm.id);
    const clones = await Promise.all(
      [1, 2].map(() => vms.engine.createVm({ snapshot }, { deadline: soon() }).then((made) => made.vm)),
    );
    expect(clones.map(({ clone }) => clone.path)).toEqual(["image", "image"]);
    const facts = "cat /etc/machine-id /proc/sys/kernel/random/uuid; hostname";
    const own = await Promise.all([vm, ...clones].map(({ id }) => vms.shell(id, facts)));
    expect(new Set(own.flatMap((text) => text.split("\n"))).size).toBe(9);
    for (const { id } of clones) expect(await vms.shell(id, HASH)).toBe(hash);
  });

  test("wait for the next daemon", async () => {
    const { vm, hash } = await startOnPath("image", false);
    await suspend(vm.id);
    vms = await vms.reopen(OPTIONS);
    expect(await vms.shell(vm.id, HASH)).toBe(hash);
    expect(vms.engine.getVm(vm.id).clone.path).toBe("image");
    expect(goOnOneByOne(await numbersOf(vms, vm.id, 20))).toBe(true);
  });

  test("have their state loaded where the image is of no use", async () => {
    const { vm, hash } = await startOnPath("image", false);
    const broken: ((directory: string) => void)[] = [
      (directory) => utimesSync(fileOf(directory, "basePath"), 1, 1),
      (directory) => rmSync(join(directory, "image")),
      (directory) => truncateSync(join(directory, "image"), 8192),
      (directory) => writeFileSync(join(directory, "about.json"), "{}"),
      (directory) => utimesSync(fileOf(directory, "memoryPath"), 1, 1),
    ];
    for (const breakIt of broken) {
      const { id } = await suspend(vm.id);
      breakIt(imageOf(id));
      expect((await resume(vm.id)).clone.path).not.toBe("image");
      expect(await vms.shell(vm.id, HASH)).toBe(hash);
    }
    expect(goOnOneByOne(await numbersOf(vms, vm.id, 30))).toBe(true);
  });

  test("have none with a disk that they write to", async () => {
    const image = await serviceImage(vms);
    vms.markDescriptors();
    const vm = await vms.start({ image, command: ["/bin/main"], diskBytes: 64 << 20, pull: "never" });
    const { id } = await suspend(vm.id);
    expect(existsSync(imageOf(id))).toBe(false);
    expect(await vms.shell(vm.id, "echo back")).toBe("back");
    expect(vms.engine.getVm(vm.id).clone.path).not.toBe("image");
  });
});

/** A file that an image's process has mapped. */
function fileOf(directory: string, which: "memoryPath" | "basePath"): string {
  return String(JSON.parse(readFileSync(join(directory, "about.json"), "utf8"))[which]);
}
