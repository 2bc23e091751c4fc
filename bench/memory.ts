/** Memory of VMs that have run a command and then been idle for two seconds, and of their daemon. */
import type { CreateVmRequest, Vm } from "../src/contract/api.ts";
import { Deadline } from "../src/sys/deadline.ts";
import { availableMemoryBytes } from "../src/sys/host.ts";
import { removeAll } from "./burst.ts";
import { ECHO } from "./measured-run.ts";
import type { OwnDaemon } from "./own-daemon.ts";
import { pause } from "./pace.ts";
import type { Samples, Subject } from "./samples.ts";

const IDLE_MS = 2000;
const LIMIT_MS = 60_000;

/** What to measure. */
export interface MemoryCase {
  daemon: OwnDaemon;
  subject: Subject;
  request: CreateVmRequest;
  /** VMs. */
  count: number;
  /** Whether the daemon's own memory and the host's are noted, too. */
  whole: boolean;
}

/**
 * Starts VMs, runs `echo hi` in each, leaves them alone, and asks the daemon for what each has to itself. With `whole`, also the
 * daemon's resident memory, and by how much less memory the host has available for each VM than before.
 */
export async function measureMemory(memory: MemoryCase, samples: Samples, signal: AbortSignal): Promise<void> {
  const { daemon, subject, count, whole } = memory;
  const { vms: api, system } = daemon.client;
  const vms: Vm[] = [];
  try {
    const availableBefore = availableMemoryBytes();
    for (let index = 0; index < count; index += 1) {
      await daemon.pools.untilFull(Deadline.after(LIMIT_MS, signal));
      const vm = await api.create(memory.request, { signal });
      vms.push(vm);
      await api.execToEnd(vm.id, { command: [...ECHO] }, { signal });
    }
    await pause(IDLE_MS, signal);
    if (whole) {
      const perVm = (availableBefore - availableMemoryBytes()) / count;
      samples.add(subject, "host-memory", "bytes", perVm);
      samples.add("daemon", `rss-${count}-vms`, "bytes", (await system.info({ signal })).daemonRssBytes);
    }
    for (const { id } of vms) {
      const stats = await api.stats(id, { signal });
      samples.add(subject, "unique-memory", "bytes", stats.uniqueMemoryBytes);
      samples.add(subject, "unique-memory-guest", "bytes", stats.guestUniqueMemoryBytes);
    }
  } finally {
    await removeAll(daemon.client, vms);
  }
}
