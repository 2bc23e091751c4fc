/** VMs whose memory may be merged with that of others: they ask for it themselves, and nobody else gets it. */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import type { Vm } from "../../src/contract/api.ts";
import { merging } from "../../src/sys/memory-merging.ts";
import { soon, TestEngine } from "../support/engine.ts";
import { describeVms } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";
import { rejection } from "../support/fake-peer.ts";

/** Whether a VM's QEMU has mappings that the kernel may merge (`mg` of proc_pid_smaps(5)), guest memory among them. */
function isMergeable({ pid }: Pick<Vm, "pid">): boolean {
  const mappings = readFileSync(`/proc/${pid}/smaps`, "latin1").split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m);
  const ofGuest = mappings.filter((text) => /^\S+ \S+ \S+ \S+ \S+ +\S*\/templates\/\S+\/memory$/m.test(text));
  const marked = mappings.filter((text) => /^VmFlags:.* mg( |$)/m.test(text));
  expect(ofGuest.length).toBe(1);
  if (marked.length > 0) expect(marked).toContain(ofGuest[0] ?? "");
  return marked.length > 0;
}

describeVms("merged VMs", () => {
  let vms: TestEngine;
  beforeAll(async () => {
    vms = await TestEngine.open({ pool: { blocked: 1, warm: 1 } });
  }, 90_000);
  afterAll(() => vms?.[Symbol.asyncDispose]());
  afterEach(async () => {
    for (const vm of vms.engine.listVms()) await vms.remove(vm.id);
    await vms.poolsFull();
    expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
  });

  test.skipIf(merging() === "unsupported")("have a QEMU of their own, and so has what comes of them", async () => {
    const plain = await vms.start({ name: "plain" });
    const merged = await vms.start({ name: "merged", merge: true });
    const image = readFileSync(`/proc/${merged.pid}/maps`, "latin1").includes("/process-image-");
    expect(plain.clone.path).not.toBe("cold");
    expect(plain.merge).toBeUndefined();
    expect(isMergeable(plain)).toBe(false);
    expect(merged).toMatchObject({ merge: true, clone: { path: "image" } });
    expect(image).toBe(true);
    expect(isMergeable(merged)).toBe(true);
    const { vmIds } = await vms.engine.snapshots.fork("merged", {}, soon());
    expect(isMergeable(vms.engine.getVm(vmIds[0] ?? ""))).toBe(true);
    await vms.engine.snapshots.checkpoint("merged", { stop: true }, soon());
    const resumed = await vms.engine.snapshots.resume("merged", soon());
    expect(resumed.merge).toBe(true);
    expect(isMergeable(resumed)).toBe(true);
    expect(await vms.shell("merged", "echo on")).toBe("on");
    const stats = await vms.engine.statsVm("merged", soon());
    expect(stats.qemuMemoryBytes + stats.guestUniqueMemoryBytes).toBe(stats.uniqueMemoryBytes);
    expect(stats.sharedMemoryBytes).toBeGreaterThan(0);
    expect(stats.mergedMemoryBytes).toBeLessThanOrEqual(stats.uniqueMemoryBytes);
  });

  test.skipIf(merging() !== "unsupported")("are refused where the kernel cannot", async () => {
    expect((await rejection(vms.start({ merge: true }))).code).toBe("merge_unsupported");
  });
});
