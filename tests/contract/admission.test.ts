/** Starts that the host would not bear if each VM took all that it may: refused before anything is made, possible again once others are gone. */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { CONFIG_DEFAULTS } from "../../src/engine/config.ts";
import { hostMemoryBytes } from "../../src/sys/host.ts";
import { soon, TestEngine } from "../support/engine.ts";
import { describeVms, SMALL } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";
import { rejection } from "../support/fake-peer.ts";

describeVms("admission", () => {
  /** The default shape, QEMU's heap and translated code. */
  const WHOLE = (SMALL.memoryMiB + 16 + 64) * 2 ** 20;
  const overcommit = (2.5 * WHOLE) / (hostMemoryBytes() - CONFIG_DEFAULTS.memoryReserveBytes);
  const memoryBytes = SMALL.memoryMiB * 2 ** 20;
  let vms: TestEngine;

  beforeAll(async () => {
    vms = await TestEngine.open({ overcommit });
    await vms.remove((await vms.start({ memoryBytes })).id);
    vms.markDescriptors();
  }, 90_000);
  afterAll(() => vms?.[Symbol.asyncDispose]());
  afterEach(async () => {
    await vms.removeAll();
    expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
    expect(vms.engine.info().memory.committedBytes).toBe(0);
  });

  const start = (name: string) => vms.start({ name, memoryBytes });
  const states = () => Object.fromEntries(vms.engine.listVms().map(({ name, state }) => [name, state]));
  const refusals = () =>
    vms.engine.metrics().samples.find(({ labels }) => labels["code"] === "memory_overcommitted")?.value ?? 0;

  test("a third VM is refused where two have room, and starts when one of them has gone", async () => {
    await start("one");
    await start("two");
    const before = refusals();
    const error = await rejection(start("three"));
    expect(error).toMatchObject({ code: "memory_overcommitted", details: { vms: 2, committedBytes: 2 * WHOLE } });
    expect(refusals()).toBe(before + 1);
    expect(vms.engine.info().memory).toMatchObject({ overcommit, committedBytes: 2 * WHOLE });
    expect(states()).toEqual({ one: "running", two: "running" });
    await vms.remove("one");
    await start("three");
    expect(await vms.processes(2)).toHaveLength(2);
  });

  test("of three at once two start", async () => {
    const outcomes = await Promise.allSettled([start("one"), start("two"), start("three")]);
    expect(outcomes.map(({ status }) => status)).toEqual(["fulfilled", "fulfilled", "rejected"]);
    expect(states()).toEqual({ one: "running", two: "running" });
  });

  test("a fork beyond it leaves no child, and its parent goes on", async () => {
    const { snapshots } = vms.engine;
    await start("parent");
    const error = await rejection(snapshots.fork("parent", { count: 2, namePrefix: "child" }, soon()));
    expect(error).toMatchObject({ code: "memory_overcommitted", details: { wantedBytes: 2 * WHOLE } });
    expect(states()).toEqual({ parent: "running" });
    expect(await vms.shell("parent", "echo on")).toBe("on");
    await snapshots.fork("parent", { namePrefix: "child" }, soon());
    expect(states()).toEqual({ parent: "running", child: "running" });
  });

  test("a suspended VM has no part in it, stays suspended while it cannot come back, and comes back later", async () => {
    const { snapshots } = vms.engine;
    await start("one");
    await vms.shell("one", "echo kept > /tmp/file");
    await snapshots.checkpoint("one", { stop: true }, soon());
    await start("two");
    await start("three");
    for (const wake of [() => snapshots.resume("one", soon()), () => vms.shell("one", "true")]) {
      const error = await rejection(wake());
      expect(error.code).toBe("memory_overcommitted");
      expect(error.message).toStartWith("Cannot resume VM one: with the 2 VMs that run");
    }
    expect(states()).toEqual({ one: "suspended", two: "running", three: "running" });
    await vms.remove("three");
    expect(await vms.shell("one", "cat /tmp/file")).toBe("kept");
    expect(states()).toEqual({ one: "running", two: "running" });
  });

  test("a clone of a snapshot and a VM that is restored from one are refused as well", async () => {
    const { snapshots } = vms.engine;
    await start("one");
    const { id } = await snapshots.checkpoint("one", {}, soon());
    await vms.remove("one");
    await start("two");
    await start("three");
    expect((await rejection(vms.start({ snapshot: id }))).code).toBe("memory_overcommitted");
    expect((await rejection(snapshots.restore(id, soon()))).message).toStartWith("Cannot restore VM one: with the 2");
    expect(states()).toEqual({ two: "running", three: "running" });
    await vms.remove("two");
    await snapshots.restore(id, soon());
    await vms.remove("three");
    await vms.start({ snapshot: id, name: "copy" });
    expect(states()).toEqual({ one: "running", copy: "running" });
    await vms.removeAll();
    await snapshots.remove(id);
  });

  test("VMs that run when a daemon with less comes stay, and no other starts", async () => {
    await start("one");
    await start("two");
    vms = await vms.reopen({ overcommit: overcommit / 2 });
    expect(states()).toEqual({ one: "running", two: "running" });
    expect((await rejection(start("three"))).details).toMatchObject({ committedBytes: 2 * WHOLE, vms: 2 });
    await vms.removeAll();
    vms = await vms.reopen({ overcommit });
    vms.markDescriptors();
  });

  test("a start that the host has no memory for right now is refused once nobody has any to give back", async () => {
    // No host has so much available: its kernel and this process have some themselves.
    await using full = await TestEngine.open({
      memoryReserveBytes: hostMemoryBytes() - 64 * 2 ** 20,
      pool: { blocked: 1, warm: 1 },
      waitForPools: false,
    });
    const error = await rejection(full.start({ memoryBytes }));
    expect(error).toMatchObject({ code: "host_memory_low", kind: "resource_exhausted" });
    expect(full.engine.listVms()).toEqual([]);
    expect(await full.processes(0)).toEqual([]);
    const { samples } = full.engine.metrics();
    expect(samples.find(({ name }) => name === "mayfly_admissions_queued_total")?.value).toBe(1);
  });
});
