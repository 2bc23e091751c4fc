/** Facts about the host: memory, CPU, pressure. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { cpus, totalmem } from "node:os";

/** Memory of the host in bytes. */
export function hostMemoryBytes(): number {
  return totalmem();
}

/** Number of CPUs of the host. */
export function hostCpuCount(): number {
  return cpus().length;
}

/** Memory that can be used without swapping, in bytes (MemAvailable). */
export function availableMemoryBytes(): number {
  const meminfo = readFileSync("/proc/meminfo", "latin1");
  return Number(/^MemAvailable:\s+(\d+)/m.exec(meminfo)?.[1] ?? 0) * 1024;
}

/** CPU model and flags, hashed: what a guest with `-cpu host` depends on. */
export function hostCpuIdentity(): string {
  const text = readFileSync("/proc/cpuinfo", "latin1");
  const line = (name: string) => new RegExp(`^${name}\\s*:\\s*(.*)$`, "m").exec(text)?.[1] ?? "";
  const hash = createHash("sha256").update(["model name", "microcode", "flags"].map(line).join("\n"));
  return `${line("model name")} ${hash.digest("hex").slice(0, 16)}`;
}

/** Kind of control groups that the host has, and the controllers that can be used. Nothing is made or changed. */
export function cgroupControllers(): { version: "v1" | "v2" | "none"; controllers: string[] } {
  const mounts = readFileSync("/proc/self/mounts", "latin1")
    .split("\n")
    .map((line) => line.split(" "));
  const v2 = mounts.find((fields) => fields[2] === "cgroup2")?.[1];
  const unified = v2 === undefined ? [] : readFileSync(`${v2}/cgroup.controllers`, "latin1").trim().split(/\s+/);
  if (unified.includes("memory")) return { version: "v2", controllers: unified };
  const controllers = mounts.flatMap((fields) => (fields[2] === "cgroup" ? (fields[3] ?? "").split(",") : []));
  return { version: controllers.includes("memory") ? "v1" : "none", controllers };
}
