/** What a running VM uses. */
import type { VmStats } from "../contract/api.ts";
import type { Deadline } from "../sys/deadline.ts";
import { cpuTimeUsOf, uniqueMemoryOf } from "../sys/process.ts";
import type { Vms } from "./vms.ts";

/** The figures of this moment: of its QEMU from the kernel, of its guest from the agent, which a paused VM is not woken up for. @throws `vm_not_running`. */
export async function statsOf(vms: Vms, ref: string, deadline: Deadline): Promise<VmStats> {
  const running = vms.running(ref);
  const { pid } = running.clone.qemu;
  // Before the guest is asked: answering costs it pages and translated code.
  const memory = uniqueMemoryOf(pid, running.clone.template.memoryPath);
  const { name, pausedAt } = vms.get(running.id);
  const guest = pausedAt === undefined ? await running.agent.stats(deadline) : null;
  const { totalBytes = 0, guestBytes = 0, sharedBytes = 0, mergedBytes = 0 } = memory ?? {};
  return {
    id: running.id,
    name,
    cpuUs: cpuTimeUsOf(pid),
    uniqueMemoryBytes: totalBytes,
    guestUniqueMemoryBytes: guestBytes,
    qemuMemoryBytes: totalBytes - guestBytes,
    sharedMemoryBytes: sharedBytes,
    mergedMemoryBytes: mergedBytes,
    guestUsedMemoryBytes: guest && Math.max(0, guest.memoryTotalBytes - guest.memoryAvailableBytes),
    guest: guest && {
      memoryTotalBytes: guest.memoryTotalBytes,
      memoryAvailableBytes: guest.memoryAvailableBytes,
      workloadMemoryBytes: guest.workloadMemoryBytes,
      workloadCpuUs: guest.workloadCpuUs,
      workloadPids: guest.workloadPids,
      uptimeMs: guest.uptimeMs,
    },
  };
}
