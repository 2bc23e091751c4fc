/** Who is busy while bytes pass: CPU time of the processes on their way, by /proc/PID/task/TID/schedstat (Linux' Documentation/scheduler/sched-stats.rst). */
import { namesIn, readOptional } from "../../src/sys/paths.ts";

/** Those on the way. QEMU's first thread has its main loop, which moves the bytes; the others are the guest's CPU. */
export const PARTIES = ["guest-cpu", "qemu", "daemon", "client"] as const;
export type Party = (typeof PARTIES)[number];

const NS_PER_MS = 1e6;

/** Milliseconds of CPU time of each since they began. */
export type CpuTimes = Readonly<Record<Party, number>>;

/** Reads them. @param daemonPid absent where no daemon is on the way. */
export async function cpuTimes(qemuPid: number, daemonPid: number | undefined): Promise<CpuTimes> {
  const [qemu, daemon, client] = await Promise.all([
    threads(qemuPid),
    daemonPid === undefined ? [] : threads(daemonPid),
    threads(process.pid),
  ]);
  const sum = (parts: readonly Thread[]) => parts.reduce((total, { cpuMs }) => total + cpuMs, 0);
  return {
    "guest-cpu": sum(qemu.filter(({ tid }) => tid !== qemuPid)),
    qemu: sum(qemu.filter(({ tid }) => tid === qemuPid)),
    daemon: sum(daemon),
    client: sum(client),
  };
}

interface Thread {
  tid: number;
  cpuMs: number;
}

async function threads(pid: number): Promise<Thread[]> {
  const tids = await namesIn(`/proc/${pid}/task`);
  const read = tids.map(async (tid) => {
    const text = (await readOptional(`/proc/${pid}/task/${tid}/schedstat`)) ?? "0";
    return { tid: Number(tid), cpuMs: Number(text.split(" ")[0]) / NS_PER_MS };
  });
  return Promise.all(read);
}
