/** What a daemon keeps of VMs that are suspended: their records, and nothing of what they were. */
import { heapStats } from "bun:jsc";
import { afterAll, beforeAll, expect, test } from "bun:test";
import { soon, TestEngine } from "../support/engine.ts";
import { describeVms } from "../support/engine-host.ts";
import { NOTHING_LEFT } from "../support/engine-leftovers.ts";

const FIRST = 2;
const MORE = 8;
/** A record with all that belongs to it has some 40 KB; device state alone was a megabyte once. */
const MOST_BYTES_EACH = 200_000;

describeVms("suspended VMs", () => {
  let vms: TestEngine;
  beforeAll(async () => {
    vms = await TestEngine.open();
    vms.markDescriptors();
  }, 90_000);
  afterAll(() => vms?.[Symbol.asyncDispose]());

  const suspend = async (count: number) => {
    for (let made = 0; made < count; made++) {
      const { id } = await vms.start();
      await vms.engine.snapshots.checkpoint(id, { stop: true }, soon());
    }
  };
  const heap = () => {
    // Finalizers of the first give what the second finds.
    for (let time = 0; time < 2; time++) Bun.gc(true);
    const { heapSize, objectTypeCounts } = heapStats();
    return { heapSize, sockets: objectTypeCounts.TCPSocket ?? 0 };
  };

  test("are their records, in the daemon's memory", async () => {
    await suspend(FIRST);
    const before = heap();
    await suspend(MORE);
    const after = heap();
    expect(after.heapSize - before.heapSize).toBeLessThan(MORE * MOST_BYTES_EACH);
    expect(after.sockets).toBeLessThanOrEqual(before.sockets + FIRST);
    await vms.removeAll();
    expect(await vms.leftBehind()).toEqual(NOTHING_LEFT);
  }, 90_000);
});
