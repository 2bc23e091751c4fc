/** Checkpoints: a VM's state on disk, from which it comes back as it was, and from which others go on. */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { COUNTER, numbersOf } from "../support/counting.ts";
import { soon, TestEngine } from "../support/engine.ts";
import { describeVms } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";
import { rejection } from "../support/fake-peer.ts";

describeVms("checkpoints", () => {
  let vms: TestEngine;

  beforeAll(async () => {
    vms = await TestEngine.open();
    await vms.remove((await vms.start()).id);
    vms.markDescriptors();
  }, 90_000);
  afterAll(() => vms?.[Symbol.asyncDispose]());
  afterEach(async () => {
    for (const vm of vms.engine.listVms()) await vms.remove(vm.id);
    for (const { id } of vms.engine.snapshots.list()) await vms.engine.snapshots.remove(id);
    expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
  });

  test("a counter goes on, is restored where it was, and goes on in clones", async () => {
    const { snapshots } = vms.engine;
    const vm = await vms.start({ command: COUNTER, name: "counter" });
    const snapshot = await snapshots.checkpoint("counter", { name: "first" }, soon());
    expect(snapshot).toMatchObject({ name: "first", kind: "checkpoint", vmId: vm.id, vmName: "counter", origin: null });
    console.log(snapshot);
    expect((await rejection(snapshots.restore("first", soon()))).code).toBe("vm_running");
    const clone = await vms.start({ snapshot: "first", name: "clone" });
    expect(clone).toMatchObject({ name: "clone", hostname: "clone", origin: { kind: "snapshot", id: snapshot.id } });
    const [inClone = 0] = await numbersOf(vms, "clone", 3);
    expect(inClone).toBeGreaterThan(0);
    await vms.remove("counter");
    const restored = await snapshots.restore("first", soon());
    expect(restored).toMatchObject({ id: vm.id, name: "counter", state: "running" });
    const [again] = await numbersOf(vms, "counter", 3);
    expect(again).toBe(inClone);
    expect(await vms.shell("counter", "hostname")).toBe("counter");
    console.log(restored.clone, clone.clone);
    expect(await snapshots.verify("first", soon())).toEqual({ id: snapshot.id, ok: true, problems: [] });
  });
});
