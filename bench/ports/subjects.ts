/** The subjects of the scenario `ports`: every kind of traffic on each of both networks. */

import { Deadline } from "../../src/sys/deadline.ts";
import { readBytes } from "../../src/sys/paths.ts";
import { firstAnswer } from "../app/first-http.ts";
import type { OwnDaemon } from "../own-daemon.ts";
import type { Samples } from "../samples.ts";
import type { Taker } from "../turns.ts";
import { type CpuTimes, cpuTimes, PARTIES } from "./busy.ts";
import { GUEST_PORTS, type HostPorts, serviceCommand } from "./service.ts";
import { giveBytes, sendRequests, takeBytes } from "./traffic.ts";

/** The two networks. */
export const NETWORKS = ["forwarded", "slirp"] as const;
export type NetworkName = (typeof NETWORKS)[number];

/** A guest with the service, and the ports that lead there. */
export interface Network {
  name: NetworkName;
  ports: HostPorts;
  qemuPid: number;
  /** Absent where the bytes pass through no daemon. */
  daemonPid: number | undefined;
}

const LIMIT_MS = 60_000;
const REQUESTS_LENGTH_MS = 1000;
const STREAM_BYTES = 64 * 2 ** 20;
const MS_PER_SECOND = 1000;
const PROGRAM = "/tmp/server";

/** How much of something passed in how long. */
interface Passed {
  count: number;
  tookMs: number;
}

/** Kinds of traffic by the metric that they give. */
export const TRAFFIC = {
  "http-kept-1": requests(1, true),
  "http-kept-32": requests(32, true),
  "http-new-1": requests(1, false),
  "http-new-32": requests(32, false),
  "bytes-to-guest": stream(giveBytes),
  "bytes-from-guest": stream(takeBytes),
} as const;
export type TrafficMetric = keyof typeof TRAFFIC;
export const TRAFFIC_METRICS: readonly TrafficMetric[] = [
  ...(["http-kept-1", "http-kept-32", "http-new-1", "http-new-32"] as const),
  ...(["bytes-to-guest", "bytes-from-guest"] as const),
];

interface Traffic {
  unit: "per-second" | "bytes-per-second";
  pass(ports: HostPorts, deadline: Deadline): Promise<Passed>;
}

function requests(connections: number, keepAlive: boolean): Traffic {
  return {
    unit: "per-second",
    pass: ({ http }, deadline) =>
      sendRequests({ port: http, connections, keepAlive, lengthMs: REQUESTS_LENGTH_MS }, deadline),
  };
}

function stream(move: typeof giveBytes): Traffic {
  return {
    unit: "bytes-per-second",
    pass: async ({ bytes }, deadline) => ({
      count: STREAM_BYTES,
      tookMs: await move(bytes, STREAM_BYTES, deadline),
    }),
  };
}

/** One for each kind of traffic on each network; those of one kind follow each other. */
export function networkTakers(networks: readonly Network[], signal: AbortSignal): Taker[] {
  return TRAFFIC_METRICS.flatMap((metric) => networks.map((network) => taker(network, metric, signal)));
}

function taker(network: Network, metric: TrafficMetric, signal: AbortSignal): Taker {
  const { unit, pass } = TRAFFIC[metric];
  const times = () => cpuTimes(network.qemuPid, network.daemonPid);
  return {
    name: `${network.name} ${metric}`,
    async take(samples) {
      const before = await times();
      const { count, tookMs } = await pass(network.ports, Deadline.after(LIMIT_MS, signal));
      const after = await times();
      samples.add(network.name, metric, unit, (count / tookMs) * MS_PER_SECOND);
      addShares(samples, network, metric, { before, after, tookMs });
    },
  };
}

/** How much of one CPU each party used meanwhile. */
function addShares(
  samples: Samples,
  { name, daemonPid }: Network,
  metric: TrafficMetric,
  { before, after, tookMs }: { before: CpuTimes; after: CpuTimes; tookMs: number },
): void {
  for (const party of PARTIES) {
    if (party === "daemon" && daemonPid === undefined) continue;
    samples.add(name, `${metric} ${party}`, "ratio", (after[party] - before[party]) / tookMs);
  }
}

/** Starts a VM with the service, published ports leading to it, and waits until it answers. */
export async function startForwarded(daemon: OwnDaemon, program: string, signal: AbortSignal): Promise<Network> {
  const { vms, files } = daemon.client;
  const ports = Object.values(GUEST_PORTS).map((guestPort) => ({ hostIp: "127.0.0.1", hostPort: 0, guestPort }));
  const vm = await vms.create({ ports }, { signal });
  await files.write(vm.id, PROGRAM, await readBytes(program), { mode: 0o755, signal });
  const start = `${serviceCommand(PROGRAM).join(" ")} </dev/null >/dev/null 2>&1 &`;
  await vms.execToEnd(vm.id, { command: ["/bin/sh", "-c", start] }, { signal });
  const published = (guestPort: number) => vm.ports.find((port) => port.guestPort === guestPort)?.hostPort ?? 0;
  const { http, bytes } = GUEST_PORTS;
  const network = { http: published(http), bytes: published(bytes) };
  await firstAnswer(network.http, Deadline.after(LIMIT_MS, signal));
  return { name: "forwarded", ports: network, qemuPid: vm.pid ?? 0, daemonPid: daemon.pid };
}
