/** Control groups of VMs: v2 where it has the controllers, v1 where it does not, none where neither can be written. */
import { mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** Which kind the host has. */
export type CgroupVersion = "v1" | "v2" | "none";

/** Limits of one VM; absent: none. */
export interface CgroupLimits {
  memoryBytes?: number;
  /** Thousandths of a CPU. */
  cpuMillis?: number;
  pids?: number;
}

const CPU_PERIOD_US = 100_000;
/** Relative weights: a VM that serves, and one that is being prepared in the background. */
const WEIGHTS = { v1: { serving: "1024", background: "2" }, v2: { serving: "100", background: "1" } } as const;
const CONTROLLERS = ["memory", "cpu", "pids"] as const;
type Controller = (typeof CONTROLLERS)[number];

/** What a VM's group is used for. */
export type CgroupPriority = "serving" | "background";

/** The group of all VMs of one daemon, `mayfly-NAME` below the root of each hierarchy. */
export class CgroupTree {
  private constructor(
    readonly version: CgroupVersion,
    /** Directory per controller; with v2 the same for all. */
    private readonly directories: Readonly<Record<Controller, string>>,
  ) {}

  /** Finds and makes the daemon's group. */
  static open(name: string): CgroupTree {
    const mounts = readFileSync("/proc/self/mounts", "latin1")
      .split("\n")
      .map((line) => line.split(" "));
    const v2 = mounts.find((fields) => fields[2] === "cgroup2")?.[1];
    const v2Controllers = v2 === undefined ? [] : tryRead(join(v2, "cgroup.controllers")).split(/\s+/);
    try {
      if (v2 !== undefined && CONTROLLERS.every((c) => v2Controllers.includes(c))) return openV2(v2, name);
      return openV1(mounts, name);
    } catch {
      return new CgroupTree("none", { memory: "", cpu: "", pids: "" });
    }

    function openV2(root: string, group: string): CgroupTree {
      const enable = CONTROLLERS.map((c) => `+${c}`).join(" ");
      writeFileSync(join(root, "cgroup.subtree_control"), enable);
      const directory = join(root, group);
      mkdirSync(directory, { recursive: true });
      writeFileSync(join(directory, "cgroup.subtree_control"), enable);
      return new CgroupTree("v2", { memory: directory, cpu: directory, pids: directory });
    }

    function openV1(all: readonly string[][], group: string): CgroupTree {
      const find = (controller: Controller): string => {
        const mount = all.find((f) => f[2] === "cgroup" && f[3]?.split(",").includes(controller))?.[1];
        if (mount === undefined) throw new Error(`no cgroup v1 hierarchy with ${controller}`);
        const directory = join(mount, group);
        mkdirSync(directory, { recursive: true });
        return directory;
      };
      const directories = { memory: find("memory"), cpu: find("cpu"), pids: find("pids") };
      tryWrite(join(directories.memory, "memory.use_hierarchy"), "1");
      return new CgroupTree("v1", directories);
    }
  }

  /** Makes the group of one VM. */
  create(name: string): Cgroup {
    const paths = this.#paths(name);
    for (const path of new Set(Object.values(paths))) if (path !== "") mkdirSync(path, { recursive: true });
    return new Cgroup(this.version, paths);
  }

  /** A group that exists, e.g. of an adopted VM. */
  existing(name: string): Cgroup {
    return new Cgroup(this.version, this.#paths(name));
  }

  /** Removes the daemon's group if it is empty. */
  remove(): boolean {
    return new Cgroup(this.version, this.directories).remove();
  }

  /** Names of the VMs' groups that are there. */
  names(): string[] {
    if (this.version === "none") return [];
    return readdirSync(this.directories.memory, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name);
  }

  #paths(name: string): Record<Controller, string> {
    if (this.version === "none") return { memory: "", cpu: "", pids: "" };
    const { memory, cpu, pids } = this.directories;
    return { memory: join(memory, name), cpu: join(cpu, name), pids: join(pids, name) };
  }
}

/** The group of one VM: QEMU is in it from before its first instruction. */
export class Cgroup {
  constructor(
    private readonly version: CgroupVersion,
    private readonly paths: Readonly<Record<Controller, string>>,
  ) {}

  /**
   * The files into which a process of one thread writes "0" to join. With v1 that is `tasks`: moving only the calling thread needs
   * no lock on all of the system's threads, for which `cgroup.procs` waits up to 10 ms (Linux' cgroup_procs_write_start).
   */
  get procsFiles(): string[] {
    if (this.version === "none") return [];
    const file = this.version === "v1" ? "tasks" : "cgroup.procs";
    return [...new Set(Object.values(this.paths))].map((path) => join(path, file));
  }

  /** Sets limits; absent ones are left as they are. */
  limit(limits: CgroupLimits): void {
    if (this.version === "none") return;
    const v2 = this.version === "v2";
    const { memoryBytes, cpuMillis, pids } = limits;
    if (memoryBytes !== undefined) {
      writeFileSync(join(this.paths.memory, v2 ? "memory.max" : "memory.limit_in_bytes"), String(memoryBytes));
    }
    if (cpuMillis !== undefined) {
      const quota = Math.max(1000, Math.round((cpuMillis / 1000) * CPU_PERIOD_US));
      if (v2) writeFileSync(join(this.paths.cpu, "cpu.max"), `${quota} ${CPU_PERIOD_US}`);
      else writeFileSync(join(this.paths.cpu, "cpu.cfs_quota_us"), String(quota));
    }
    if (pids !== undefined) writeFileSync(join(this.paths.pids, "pids.max"), String(pids));
  }

  /** Gives way to serving VMs while being prepared, or not any more. */
  prioritise(priority: CgroupPriority): void {
    if (this.version === "none") return;
    const file = this.version === "v2" ? "cpu.weight" : "cpu.shares";
    writeFileSync(join(this.paths.cpu, file), WEIGHTS[this.version][priority]);
  }

  /** Processes in it. */
  pids(): number[] {
    if (this.version === "none") return [];
    const text = tryRead(join(this.paths.memory, "cgroup.procs"));
    return text
      .split("\n")
      .filter((line) => line !== "")
      .map(Number);
  }

  /** Removes the empty group. @returns false while a process is still in it. */
  remove(): boolean {
    if (this.version === "none") return true;
    let gone = true;
    for (const path of new Set(Object.values(this.paths))) {
      try {
        rmdirSync(path);
      } catch (error) {
        if (error instanceof Error && "code" in error && error.code !== "ENOENT") gone = false;
      }
    }
    return gone;
  }
}

function tryRead(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return "";
  }
}

/** For settings that newer kernels no longer have. */
function tryWrite(path: string, value: string): void {
  try {
    writeFileSync(path, value);
  } catch {
    return;
  }
}
