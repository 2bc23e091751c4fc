/**
 * A control group beside a VM's. Mayfly's VMs are in groups, which share the CPU with everything else of a busy machine as groups; a peer
 * outside of them would get more of it.
 */
import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";

const NAME = "bench-peer";

/** The group; disposing it removes it, once its processes have ended. */
export interface SiblingGroup extends Disposable {
  /** Moves a process with all of its threads into it. */
  add(pid: number): void;
}

/** Makes it. @returns undefined where the VM is in no group of its own. @throws the system's error. */
export function siblingGroupOf(vmPid: number): SiblingGroup | undefined {
  const place = cpuGroupOf(readFileSync(`/proc/${vmPid}/cgroup`, "utf8"), readFileSync("/proc/self/mounts", "utf8"));
  if (place === undefined) return undefined;
  const directory = `${place.slice(0, place.lastIndexOf("/"))}/${NAME}`;
  mkdirSync(directory);
  return {
    add: (pid) => writeFileSync(`${directory}/cgroup.procs`, String(pid)),
    [Symbol.dispose]: () => rmdirSync(directory),
  };
}

/**
 * Where the group lies that gives a process its CPU, of cgroups v1 or v2.
 * @param groups as /proc/PID/cgroup has them (cgroups(7)). @param mounts as /proc/self/mounts has them.
 * @returns undefined if that is the root.
 */
export function cpuGroupOf(groups: string, mounts: string): string | undefined {
  const lines = groups.split("\n").map((line) => line.split(":"));
  const ofCpu = lines.find(([, controllers]) => controllers?.split(",").includes("cpu"));
  const path = (ofCpu ?? lines.find(([id]) => id === "0"))?.slice(2).join(":");
  const isWanted = ([, , type, options]: string[]) =>
    ofCpu === undefined ? type === "cgroup2" : type === "cgroup" && options?.split(",").includes("cpu") === true;
  const mount = mounts
    .split("\n")
    .map((line) => line.split(" "))
    .find(isWanted)?.[1];
  if (path === undefined || path === "/" || mount === undefined) return undefined;
  return `${mount}${path}`;
}
