/** The subjects of the scenario `fork` that are Mayfly's: each takes one sample of what it does to a VM that goes on. */
import type { CaptureTimes, Snapshot } from "../../src/contract/api.ts";
import { MayflyError } from "../../src/contract/errors.ts";
import { Deadline, nowMs } from "../../src/sys/deadline.ts";
import type { OwnDaemon } from "../own-daemon.ts";
import type { Samples, Subject } from "../samples.ts";
import type { Taker } from "../turns.ts";
import { echoed, firstEcho } from "./vms.ts";

const LIMIT_MS = 60_000;
const PAGE_BYTES = 4096;

/** Ids of the VMs that subjects work on. */
export interface Parents {
  /** Nothing runs in it. */
  idle: string;
  /** It has written memory. */
  dirty: string;
  /** The last of a chain of forks. */
  deepest: string;
  /** Its process gives back what it gets. */
  echoing: string;
}

/** What the subjects work with. */
export interface ForkBench {
  daemon: OwnDaemon;
  signal: AbortSignal;
  parents: Parents;
  depth: number;
  children: number;
  dirtyMiB: number;
}

/** Ends of metrics' names. */
export const dirtied = (mebibytes: number) => `-dirty-${mebibytes}`;
export const atDepth = (depth: number) => `-depth-${depth}`;

/** All of them. */
export function mayflyTakers(bench: ForkBench): Taker[] {
  const { parents, dirtyMiB, depth } = bench;
  return [
    forkTaker(bench, "fork", parents.idle, ""),
    forkTaker(bench, "fork dirty", parents.dirty, dirtied(dirtyMiB)),
    forkTaker(bench, "fork deep", parents.deepest, atDepth(depth)),
    severalTaker(bench),
    checkpointTaker(bench, "checkpoint", parents.idle, ""),
    checkpointTaker(bench, "checkpoint dirty", parents.dirty, dirtied(dirtyMiB)),
    suspendTaker(bench),
  ];
}

/** One child; the first output is that of `echo hi` in it. @param suffix of the metrics' names. */
export function forkTaker({ daemon, signal }: ForkBench, name: string, parent: string, suffix: string): Taker {
  const { client } = daemon;
  return {
    name,
    async take(samples) {
      const startedMs = nowMs();
      const { vmIds, times, deltaBytes } = await client.vms.fork(parent, {}, { signal });
      const readyMs = nowMs() - startedMs;
      const [child = ""] = vmIds;
      try {
        const outputMs = (await firstEcho(client, child, Deadline.after(LIMIT_MS, signal))) - startedMs;
        const { path } = (await client.vms.get(child, { signal })).clone;
        if (path === "cold") throw new MayflyError("pool_exhausted", "A full pool gave a child by the path cold");
        addStops(samples, "fork", suffix, times);
        samples.add("fork", `child-ready${suffix}`, "ms", readyMs);
        samples.add("fork", `first-output${suffix}`, "ms", outputMs);
        const bytes = path === "copy" ? await ownBytes(daemon, parent, signal) : deltaBytes;
        samples.add("fork", `delta-bytes${suffix}`, "bytes", bytes);
      } finally {
        await client.vms.remove(child, { force: true });
      }
    },
  };
}

/** What a copy of its parent's process has to itself of guest memory when it is ready: the pages that one of both has written by then. */
async function ownBytes({ client }: OwnDaemon, parent: string, signal: AbortSignal): Promise<number> {
  const { vmIds } = await client.vms.fork(parent, {}, { signal });
  const [child = ""] = vmIds;
  try {
    return (await client.vms.stats(child, { signal })).guestUniqueMemoryBytes;
  } finally {
    await client.vms.remove(child, { force: true });
  }
}

function severalTaker({ daemon, signal, parents, children }: ForkBench): Taker {
  const { vms } = daemon.client;
  return {
    name: `fork ${children}`,
    async take(samples) {
      const startedMs = nowMs();
      const { vmIds } = await vms.fork(parents.idle, { count: children }, { signal });
      samples.add("fork", `children-ready-${children}`, "ms", nowMs() - startedMs);
      for (const id of vmIds) await vms.remove(id, { force: true });
    },
  };
}

/** @param suffix of the metrics' names. */
export function checkpointTaker({ daemon, signal }: ForkBench, name: string, vm: string, suffix: string): Taker {
  const { vms, snapshots } = daemon.client;
  return {
    name,
    async take(samples) {
      const snapshot = await vms.checkpoint(vm, {}, { signal });
      addStops(samples, "checkpoint", suffix, snapshot.times);
      samples.add("checkpoint", `delta-bytes${suffix}`, "bytes", keptBytes(snapshot));
      await snapshots.remove(snapshot.id);
    },
  };
}

/** Suspended, and at once back. The first output is that of the process which has been running in it. */
function suspendTaker({ daemon, signal, parents }: ForkBench): Taker {
  const { client } = daemon;
  return {
    name: "suspend and resume",
    async take(samples) {
      const startedMs = nowMs();
      const snapshot = await client.vms.checkpoint(parents.echoing, { stop: true }, { signal });
      samples.add("suspend", "gone", "ms", nowMs() - startedMs);
      addDurable(samples, "suspend", "", snapshot.times);
      samples.add("suspend", "delta-bytes", "bytes", keptBytes(snapshot));
      const resumedMs = nowMs();
      await client.vms.resume(parents.echoing, { signal });
      samples.add("resume", "ready", "ms", nowMs() - resumedMs);
      const outputMs = await echoed(client, parents.echoing, Deadline.after(LIMIT_MS, signal));
      samples.add("resume", "first-output", "ms", outputMs - resumedMs);
    },
  };
}

function addStops(samples: Samples, subject: Subject, suffix: string, times: CaptureTimes): void {
  samples.add(subject, `parent-stopped${suffix}`, "ms", times.stoppedMs);
  samples.add(subject, `vcpu-stopped${suffix}`, "ms", times.vcpuStoppedMs);
  addDurable(samples, subject, suffix, times);
}

function addDurable(samples: Samples, subject: Subject, suffix: string, { durableMs }: CaptureTimes): void {
  if (durableMs !== null) samples.add(subject, `durable${suffix}`, "ms", durableMs);
}

/** Bytes of the pages that a snapshot has. */
function keptBytes({ pages, zeroPages }: Snapshot): number {
  return (pages - zeroPages) * PAGE_BYTES;
}
