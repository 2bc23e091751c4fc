/** Memory of the process that looks after a crowd. */
import { readFileSync } from "node:fs";

/** Resident bytes of a process: pages of files that it shares included. @throws the system's error when it is gone. */
export function rssBytesOf(pid: number): number {
  const kilobytes = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  return Number(kilobytes ?? 0) * 1024;
}
