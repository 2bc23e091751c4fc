/**
 * Memory that a VM does not use goes back to the host. The agent drops the guest's caches and fills what is free with zeroes, and the daemon the buffers of
 * the agent's port, which is what the template's file has there; meanwhile pages that equal that file are dropped from QEMU's own, a batch at a time, while its vCPUs and devices stand
 * still. What is in guest memory is the same before and after, whatever the guest says or does, and nothing is ever written to the file.
 */
import type { RefreshResult } from "../contract/api.ts";
import { Deadline, nowMs, realtimeNs } from "../sys/deadline.ts";
import { MemoryReturn } from "../sys/memory-return.ts";
import { uniqueMemoryOf } from "../sys/process.ts";
import { guestMapping } from "../sys/process-memory.ts";
import { LIMITS_MS } from "./config.ts";
import type { EngineParts } from "./engine.ts";
import { Gate } from "./gate.ts";
import type { RunningVm } from "./running-vm.ts";

/** What is worth a stop while the guest still fills its free memory, and afterwards. */
const BATCH_BYTES = 8 << 20;
const LAST_BATCH_BYTES = 128 << 10;
/** A guest that writes all the time what its template has could keep this busy for ever. */
const MAX_STOPS = 400;
/** One VM at a time: while its guest fills its free memory it may take some more. */
const turns = new Gate(1);

/** How long it stood still. */
interface Stops {
  count: number;
  totalMs: number;
  longestMs: number;
}

/**
 * Gives memory that a running VM does not use back to the host.
 * @throws `vm_not_running`, `not_capturable` where the host does not let the daemon at its QEMU, `agent_request_failed`, `deadline_exceeded`; the VM goes
 * on whatever happens, with what it has by then.
 */
export async function refreshVm(
  { host, vms, events }: EngineParts,
  ref: string,
  deadline: Deadline,
): Promise<RefreshResult> {
  const { id } = vms.withMain(ref);
  using _turn = await turns.enter();
  const startedMs = nowMs();
  const running = vms.withMain(id);
  using _awake = running.stayAwake();
  const { qemu, template } = running.clone;
  const before = uniqueMemoryOf(qemu.pid, template.memoryPath);
  const mapping = guestMapping(qemu.pid, template.memoryPath);
  using program = new MemoryReturn(host.config.artifacts.launcher.path, qemu.identity, mapping, template.memoryPath);
  const stops = await giveBack(running, program, mapping.lengthBytes, deadline);
  const after = uniqueMemoryOf(qemu.pid, template.memoryPath);
  const result: RefreshResult = {
    id,
    name: vms.get(id).name,
    returnedBytes: Math.max(0, (before?.guestBytes ?? 0) - (after?.guestBytes ?? 0)),
    uniqueMemoryBytes: after?.totalBytes ?? 0,
    stoppedMs: thousandths(stops.totalMs),
    longestStopMs: thousandths(stops.longestMs),
    tookMs: thousandths(nowMs() - startedMs),
  };
  const { name, returnedBytes, stoppedMs, longestStopMs } = result;
  events.emit("vm.refreshed", id, name, { returnedBytes, stoppedMs, longestStopMs, stops: stops.count });
  return result;
}

/** Drops pages as the guest makes them equal to the template's, and then until hardly any are left. */
async function giveBack(
  running: RunningVm,
  program: MemoryReturn,
  memoryBytes: number,
  deadline: Deadline,
): Promise<Stops> {
  const stops: Stops = { count: 0, totalMs: 0, longestMs: 0 };
  let filling = true;
  // What the guest was sent, which its template has zeroes for.
  await running.clone.qemu.untilExit(running.agent.zeroPortBuffers(deadline), "filling the port's buffers");
  // Caches first, so that what they held is free; all of it in one request.
  const filled = running.agent.trim(memoryBytes, deadline).finally(() => {
    filling = false;
  });
  filled.catch(() => undefined);
  for (let small = 0; small < 2 && stops.count < MAX_STOPS; ) {
    const wasFilling = filling;
    const found = await running.clone.qemu.untilExit(program.look(), "giving memory back");
    const isEnough = found >= (wasFilling ? BATCH_BYTES : LAST_BATCH_BYTES);
    if (isEnough) await dropBatch(running, program, stops, deadline);
    // A look goes on where the last one has ended: two of them have seen all of it.
    small = isEnough || wasFilling ? 0 : small + 1;
    deadline.signal?.throwIfAborted();
    if (deadline.remainingMs === 0) break;
  }
  await running.clone.qemu.untilExit(filled, "filling free memory");
  // Its clock has stood as well.
  await running.clone.qemu.untilExit(running.agent.time(realtimeNs(), deadline), "setting the clock");
  return stops;
}

/** One batch, while nothing of the VM moves. It goes on whatever happens. */
async function dropBatch(running: RunningVm, program: MemoryReturn, stops: Stops, deadline: Deadline): Promise<void> {
  const { qemu } = running.clone;
  const qmp = await qemu.qmp(deadline);
  await running.standStill(async () => {
    const startedMs = nowMs();
    try {
      await qemu.untilExit(qmp.execute("stop", undefined, deadline), "stopping");
      await qemu.untilExit(program.discard(), "giving memory back");
    } finally {
      await qemu.untilExit(qmp.execute("cont", undefined, Deadline.after(LIMITS_MS.request)), "going on");
      const tookMs = nowMs() - startedMs;
      stops.count += 1;
      stops.totalMs += tookMs;
      stops.longestMs = Math.max(stops.longestMs, tookMs);
    }
  });
}

function thousandths(ms: number): number {
  return Math.round(ms * 1000) / 1000;
}
