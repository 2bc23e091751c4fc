/** How long a VM stood still for a checkpoint or a fork, in words. */
import type { CaptureTimes } from "../contract/api.ts";

/** e.g. `stood still for 6.3 ms (its CPUs for 4.5 ms), on the disk after 31.0 ms`. */
export function describeTimes({ stoppedMs, vcpuStoppedMs, durableMs }: CaptureTimes): string {
  const durable = durableMs === null ? "" : `, on the disk after ${milliseconds(durableMs)}`;
  return `stood still for ${milliseconds(stoppedMs)} (its CPUs for ${milliseconds(vcpuStoppedMs)})${durable}`;
}

function milliseconds(ms: number): string {
  return `${ms.toFixed(1)} ms`;
}
