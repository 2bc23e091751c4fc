/** What this process uses. */
import { readdirSync } from "node:fs";

/** Figures of this moment. */
export interface ProcessUsage {
  rssBytes: number;
  openDescriptors: number;
  /** User and system time. */
  cpuSeconds: number;
  /** Since 1970. */
  startedAtSeconds: number;
}

/** What this process uses now. */
export function processUsage(): ProcessUsage {
  const { user, system } = process.cpuUsage();
  return {
    rssBytes: process.memoryUsage.rss(),
    // The directory's own descriptor is one of them.
    openDescriptors: readdirSync("/proc/self/fd").length - 1,
    cpuSeconds: (user + system) / 1e6,
    startedAtSeconds: performance.timeOrigin / 1000,
  };
}
