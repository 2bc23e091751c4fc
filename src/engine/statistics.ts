/** What a running VM uses. */
import type { VmStats } from "../contract/api.ts";
import type { Deadline } from "../sys/deadline.ts";
import { cpuTimeUsOf, uniqueMemoryOf } from "../sys/process.ts";
import type { Vms } from "./vms.ts";

/** The figures of this moment: of its QEMU from the kernel, of its guest from the agent. @throws `vm_not_running`. */
export async function statsOf(vms: Vms, ref: string, deadline: Deadline): Promise<VmStats> {
  const running = vms.running(ref);
  const { pid } = running.clone.qemu;
  // Before the guest is asked: answering costs it pages and translated code.
  const memory = uniqueMemoryOf(pid, running.clone.template.memoryPath);
  const guest = await running.agent.stats(deadline);
  const { totalBytes = 0, guestBytes = 0, sharedBytes = 0, mergedBytes = 0 } = memory ?? {};
  return {
    id: running.id,
    name: vms.get(running.id).name,
    cpuUs: cpuTimeUsOf(pid),
    uniqueMemoryBytes: totalBytes,
    guestUniqueMemoryBytes: guestBytes,
    qemuMemoryBytes: totalBytes - guestBytes,
    sharedMemoryBytes: sharedBytes,
    mergedMemoryBytes: mergedBytes,
    guestUsedMemoryBytes: Math.max(0, guest.memoryTotalBytes - guest.memoryAvailableBytes),
    guest: {
      memoryTotalBytes: guest.memoryTotalBytes,
      memoryAvailableBytes: guest.memoryAvailableBytes,
      workloadMemoryBytes: guest.workloadMemoryBytes,
      workloadCpuUs: guest.workloadCpuUs,
      workloadPids: guest.workloadPids,
      uptimeMs: guest.uptimeMs,
    },
  };
}
