/** What children of a fork have to themselves when they have been idle for two seconds. */
import { pause } from "../pace.ts";
import type { Samples } from "../samples.ts";
import { atDepth, type ForkBench } from "./subjects.ts";

const IDLE_MS = 2000;
const CHILDREN = 5;

/** `unique-memory` of idle children, `-guest` the part that is guest memory; of children of the idle VM and of the deepest one. */
export async function measureChildren(bench: ForkBench, samples: Samples): Promise<void> {
  const { daemon, signal, parents, depth } = bench;
  const { vms } = daemon.client;
  for (const [parent, suffix] of [
    [parents.idle, ""],
    [parents.deepest, atDepth(depth)],
  ] as const) {
    const { vmIds } = await vms.fork(parent, { count: CHILDREN }, { signal });
    try {
      await pause(IDLE_MS, signal);
      for (const id of vmIds) {
        const { uniqueMemoryBytes, guestUniqueMemoryBytes } = await vms.stats(id, { signal });
        samples.add("fork", `unique-memory${suffix}`, "bytes", uniqueMemoryBytes);
        samples.add("fork", `unique-memory-guest${suffix}`, "bytes", guestUniqueMemoryBytes);
      }
    } finally {
      for (const id of vmIds) await vms.remove(id, { force: true });
    }
  }
}
