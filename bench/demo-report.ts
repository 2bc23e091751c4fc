/** What the demo says. */
import { formatTable } from "../src/cli/output.ts";
import type { SystemInfo } from "../src/contract/api.ts";
import { DEMO_COMMAND, type DemoVm } from "./demo-series.ts";
import { formatHistogram, formatValue } from "./report.ts";
import { summarize } from "./statistics.ts";

/** Times of one way to run the command, in milliseconds from request or start to first output. */
export interface DemoTimes {
  name: string;
  firstOutputMs: number[];
}

/** Load per CPU from which on the machine counts as busy. */
const BUSY = 0.5;

/** What runs here, and what is about to happen. */
export function formatIntroduction(info: SystemInfo, count: number, hostKernel: string): string {
  const how = info.accelerator === "kvm" ? "KVM" : "software emulation: KVM cannot be used here";
  return `
Mayfly runs each container in a virtual machine of its own (QEMU ${info.qemu.version}, ${how}).
A VM does not boot: it is cloned from a parent that has booted once. Each has its own kernel, ${info.kernelVersion}
(the host's is ${hostKernel}), and its own identity: name, clock, random numbers.

${count} VMs cloned from the parent, one after another, with nothing prepared. In each:
  ${DEMO_COMMAND.join(" ")}
`;
}

/** A line for each VM. */
export function formatVms(vms: readonly DemoVm[]): string {
  const rows = vms.map((vm, index) => [
    String(index + 1),
    vm.said,
    formatValue(vm.readyMs, "ms"),
    formatValue(vm.firstOutputMs, "ms"),
    formatValue(vm.uniqueMemoryBytes, "bytes"),
  ]);
  return formatTable(["#", "SAID", "READY", "FIRST OUTPUT", "MEMORY OF ITS OWN"], rows);
}

/** Before the second series. */
export function formatPoolIntroduction(info: SystemInfo, count: number): string {
  const target = info.pools.find((pool) => pool.target.warm + pool.target.blocked > 0)?.target;
  const kept =
    target === undefined
      ? "no pool is kept"
      : `${target.warm} paused clones and ${target.blocked} waiting QEMUs are kept ready`;
  return `
The same from the pool as it is shipped (${kept}): ${count} VMs, one after another,
each once the pool has been refilled, as somebody would who types commands.
`;
}

/** Which way the VMs of a series came to be. */
export function formatPaths(vms: readonly DemoVm[]): string {
  const words = {
    warm: "paused clones",
    copy: "their parent, copied",
    pool: "waiting QEMUs",
    cold: "nothing prepared",
  } as const;
  const parts = Object.entries(words).flatMap(([path, word]) => {
    const count = vms.filter((vm) => vm.path === path).length;
    return count === 0 ? [] : [`${count} from ${word}`];
  });
  return `${parts.join(", ")}\n`;
}

/** Histogram of a series. */
export function formatTimes(title: string, vms: readonly DemoVm[]): string {
  return `\n${title}, request to first output:\n${formatHistogram(vms.map((vm) => vm.firstOutputMs))}`;
}

/** All ways side by side. */
export function formatComparison(times: readonly DemoTimes[]): string {
  const rows = times.map(({ name, firstOutputMs }) => {
    const { n, p50, max } = summarize(firstOutputMs);
    const cells = [Math.min(...firstOutputMs), p50, max].map((value) => formatValue(value, "ms"));
    return [name, String(n), ...cells];
  });
  return `\nThe same command, from request or start to first output:\n${formatTable(["", "N", "FASTEST", "MEDIAN", "SLOWEST"], rows)}`;
}

/** Says that figures of a busy machine mean little; nothing on a quiet one. */
export function formatLoad(load: number, cpus: number): string {
  if (load / cpus < BUSY) return "";
  return `\nThis machine is busy (load ${load.toFixed(1)} on ${cpus} CPUs): on a quiet one all of this is faster.\n`;
}

/** What to try next. */
export function formatEnd(mayfly: string): string {
  const commands: [string, string][] = [
    ["run --rm -it -- sh", "a shell in a new VM"],
    ["run -d --name first -- sleep 600", "a VM that stays; then: exec first -- uname -a"],
    ["bench clone --runs 20", "the same as a benchmark, a few minutes long"],
  ];
  const width = Math.max(...commands.map(([words]) => words.length));
  const lines = commands.map(([words, what]) => `  ${mayfly} ${words.padEnd(width)}   ${what}\n`);
  return `\nAll VMs of this demo are gone. Try next:\n${lines.join("")}`;
}
