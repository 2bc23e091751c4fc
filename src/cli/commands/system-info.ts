/** `mayfly system info`. */
import type { SystemInfo } from "../../contract/api.ts";
import { print } from "../../sys/standard-io.ts";
import { openClient } from "../client.ts";
import { formatFacts, printJson } from "../output.ts";
import { formatBytes } from "../sizes.ts";
import { defineCommand } from "../specification.ts";

export const command = defineCommand({
  description: "Show what the daemon runs with: QEMU, accelerator and why, kernel, agent, pools.",
  operands: [],
  options: {},
  examples: [["mayfly system info", "the facts"]],
  async run({ global }) {
    const info = await openClient(global).system.info();
    if (global.json) await printJson(info);
    else await print(formatFacts(facts(info)));
    return 0;
  },
});

function memory({ overcommit, limitBytes, committedBytes, availableBytes }: SystemInfo["memory"]): string {
  const committed = `VMs could take ${formatBytes(committedBytes)} of ${formatBytes(limitBytes)}`;
  return `${committed} (overcommit ${overcommit}), ${formatBytes(availableBytes)} available now`;
}

function facts(info: SystemInfo): [string, string][] {
  const pools = info.pools.map(({ shape, profile, blocked, standing, warm, parent, target }): [string, string] => [
    `Pool ${shape.memoryMiB}MiB x${shape.vcpus} ${profile}`,
    `${warm} of ${target.warm} warm, ${blocked} of ${target.blocked} waiting for state${standing > 0 ? `, ${standing} from a process image` : ""}${parent ? ", a parent to copy" : ""}`,
  ]);
  return [
    ["Version", info.version],
    ["Daemon", `pid ${info.pid}, ${formatBytes(info.daemonRssBytes)} resident`],
    ["VMs", String(info.vms)],
    ["Memory", memory(info.memory)],
    ["Accelerator", `${info.accelerator} (${info.acceleratorReason})`],
    ["QEMU", `${info.qemu.version}, ${info.qemu.kind}, ${info.qemu.path}`],
    ["Kernel", info.kernelVersion],
    ["Agent", info.agentBuildId],
    ["Control groups", info.cgroup],
    ["State directory", info.stateDir],
    ["Run directory", info.runDir],
    ...pools,
  ];
}
