/** Memory of VMs that have been idle for two seconds, before and after their first command, and of their daemon. */
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
 * Starts VMs, leaves them alone, and asks the daemon for what each has to itself (`unique-memory`, `unique-memory-guest`); then the
 * same after `echo hi` in each (`-used`). With `whole`, then also by how much less memory the host has available for each VM than before, and the
 * daemon's resident memory, directly after it was asked for all of that (`-busy`) and after two idle seconds.
 */
export async function measureMemory(memory: MemoryCase, samples: Samples, signal: AbortSignal): Promise<void> {
  const { daemon, subject, count, whole } = memory;
  const { vms: api, system } = daemon.client;
  const vms: Vm[] = [];
  const noteIdle = async (suffix: string) => {
    await pause(IDLE_MS, signal);
    for (const { id } of vms) {
      const stats = await api.stats(id, { signal });
      samples.add(subject, `unique-memory${suffix}`, "bytes", stats.uniqueMemoryBytes);
      samples.add(subject, `unique-memory-guest${suffix}`, "bytes", stats.guestUniqueMemoryBytes);
    }
  };
  const noteDaemon = async (suffix: string) => {
    samples.add("daemon", `rss-${count}-vms${suffix}`, "bytes", (await system.info({ signal })).daemonRssBytes);
  };
  try {
    const availableBefore = availableMemoryBytes();
    for (let index = 0; index < count; index += 1) {
      await daemon.pools.untilFull(Deadline.after(LIMIT_MS, signal));
      vms.push(await api.create(memory.request, { signal }));
    }
    await noteIdle("");
    for (const { id } of vms) await api.execToEnd(id, { command: [...ECHO] }, { signal });
    await noteIdle("-used");
    if (!whole) return;
    samples.add(subject, "host-memory", "bytes", (availableBefore - availableMemoryBytes()) / count);
    await noteDaemon("-busy");
    await pause(IDLE_MS, signal);
    await noteDaemon("");
  } finally {
    await removeAll(daemon.client, vms);
  }
}
