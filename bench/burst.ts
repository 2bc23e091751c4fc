/** Many clones asked for at once, against as many one after another. Nothing is prepared for either, and all stay until the end. */
import type { Client } from "../src/client/client.ts";
import type { Vm } from "../src/contract/api.ts";
import { nowMs } from "../src/sys/deadline.ts";
import type { Samples } from "./samples.ts";

/** Removals at a time. */
const REMOVERS = 8;

/** Measures both, `count` clones each, and removes them. */
export async function measureBurst(
  client: Client,
  count: number,
  samples: Samples,
  signal: AbortSignal,
  { settle, note }: { settle: () => Promise<void>; note: (text: string) => void },
): Promise<void> {
  const sequenceMs = await startInSequence(client, count, signal);
  samples.add("clone", "sequential-rate", "per-second", (count * 1000) / sequenceMs);
  await settle();
  const { readyMs, failures, reason } = await startAtOnce(client, count, signal);
  if (failures > 0) note(`${failures} of ${count} clones asked for at once failed, the first one with: ${reason}`);
  await settle();
  // The ratio is to what all of them take one after another: that of the slowest is its maximum.
  for (const value of readyMs) {
    samples.add("clone", "burst-ready", "ms", value);
    samples.add("clone", "burst-ratio", "ratio", value / sequenceMs);
  }
  for (let index = 0; index < count; index += 1)
    samples.add("clone", "burst-failed", "count", index < failures ? 1 : 0);
  if (readyMs.length > 0) samples.add("clone", "burst-slowest", "ms", Math.max(...readyMs));
}

/** @returns the milliseconds that it took to have all ready. */
async function startInSequence(client: Client, count: number, signal: AbortSignal): Promise<number> {
  const vms: Vm[] = [];
  try {
    const startedMs = nowMs();
    for (let index = 0; index < count; index += 1) vms.push(await client.vms.create({ pool: false }, { signal }));
    return nowMs() - startedMs;
  } finally {
    await removeAll(client, vms);
  }
}

async function startAtOnce(
  client: Client,
  count: number,
  signal: AbortSignal,
): Promise<{ readyMs: number[]; failures: number; reason: unknown }> {
  const asked = Array.from({ length: count }, () => client.vms.create({ pool: false }, { signal }));
  const answers = await Promise.allSettled(asked);
  const vms = answers.flatMap((answer) => (answer.status === "fulfilled" ? [answer.value] : []));
  await removeAll(client, vms);
  signal.throwIfAborted();
  return {
    readyMs: vms.flatMap(({ clone }) => (clone.readyMs === null ? [] : [clone.readyMs])),
    failures: count - vms.length,
    reason: answers.find((answer) => answer.status === "rejected")?.reason,
  };
}

/** Removes VMs, a few at a time. */
export async function removeAll(client: Client, vms: readonly Vm[]): Promise<void> {
  const left = [...vms];
  const remover = async () => {
    for (let vm = left.pop(); vm !== undefined; vm = left.pop()) await client.vms.remove(vm.id, { force: true });
  };
  await Promise.all(Array.from({ length: REMOVERS }, remover));
}
