/** What a run was measured on, for whoever reads its figures later. */
import { cpus, loadavg, release, totalmem } from "node:os";
import { dirname } from "node:path";
import type { SystemInfo } from "../src/contract/api.ts";
import { VERSION } from "../src/contract/version.ts";
import { readOptional } from "../src/sys/paths.ts";
import { runTool } from "../src/sys/tool.ts";

/** Facts about the machine and what runs on it. */
export interface HostFacts {
  cpu: string;
  cpus: number;
  memoryBytes: number;
  os: string;
  kernel: string;
  /** Load averages of 1, 5 and 15 minutes as the run began: on a quiet machine near 0. */
  loadAverage: number[];
  mayfly: string;
  bun: string;
  qemu: string;
  accelerator: string;
  guestKernel: string;
}

/** Collects the facts. */
export async function hostFacts(info: SystemInfo, loadAverage: number[]): Promise<HostFacts> {
  const osRelease = (await readOptional("/etc/os-release")) ?? "";
  return {
    cpu: cpus()[0]?.model ?? "unknown",
    cpus: cpus().length,
    memoryBytes: totalmem(),
    os: /^PRETTY_NAME="?([^"\n]*)/m.exec(osRelease)?.[1] ?? "unknown",
    kernel: release(),
    loadAverage,
    mayfly: VERSION,
    bun: process.versions["bun"] ?? "unknown",
    qemu: `${info.qemu.version} (${info.qemu.kind})`,
    accelerator: info.accelerator,
    guestKernel: info.kernelVersion,
  };
}

/** Load averages of this moment. */
export function currentLoad(): number[] {
  return loadavg().map((load) => Number(load.toFixed(2)));
}

/** Directory of the checkout that this program runs from; `undefined` for an executable without one. */
function checkoutDirectory(): string | undefined {
  const directory = dirname(import.meta.dir);
  return directory.startsWith("/$bunfs/") ? undefined : directory;
}

/** Commit of the checkout, with `+changes` where files differ from it; `null` where there is no checkout. */
export async function currentCommit(): Promise<string | null> {
  const directory = checkoutDirectory();
  if (directory === undefined) return null;
  const git = async (...command: string[]) => (await runTool(["git", "-C", directory, ...command])).stdout.trim();
  try {
    const changes = await git("status", "--porcelain", "--untracked-files=no");
    return `${await git("rev-parse", "HEAD")}${changes === "" ? "" : "+changes"}`;
  } catch {
    return null;
  }
}
