/** Which processes run a program. */
import { readdirSync, readlinkSync } from "node:fs";

/**
 * Processes of this host that run the file at `path` as it is now; one that has been replaced or removed meanwhile is another file.
 * Those of other users are seen by root only.
 *
 * @returns their pids.
 */
export function processesRunning(path: string): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && programOf(name) === path)
    .map(Number);
}

/** Path of a process' program; undefined when it has ended, is the kernel's own, or may not be looked at. */
function programOf(pid: string): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/exe`);
  } catch {
    return undefined;
  }
}
