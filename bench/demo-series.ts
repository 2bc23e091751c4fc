/** A row of VMs, each made and asked for a first output by one request, and kept until all are there. */
import type { Client } from "../src/client/client.ts";
import { openSession, type Session } from "../src/client/session.ts";
import type { Transport } from "../src/client/transport.ts";
import type { ClonePath } from "../src/contract/api.ts";
import { MayflyError } from "../src/contract/errors.ts";
import { Deadline, nowMs } from "../src/sys/deadline.ts";

/** Says the host's name and waits until its standard input ends: the same for VMs and containers. */
export const DEMO_COMMAND = ["cat", "/proc/sys/kernel/hostname", "-"] as const;

const START_LIMIT_MS = 60_000;
const END_LIMIT_MS = 10_000;

/** One VM of a series. */
export interface DemoVm {
  name: string;
  /** From what it was started. */
  path: ClonePath | null;
  readyMs: number;
  /** From the request to the first byte of output here. */
  firstOutputMs: number;
  /** What it said. */
  said: string;
  /** Bytes that it has to itself on the host. */
  uniqueMemoryBytes: number;
}

/** What a series needs. */
export interface SeriesOptions {
  client: Client;
  transport: Transport;
  count: number;
  /** false: nothing prepared is taken. */
  pool: boolean;
  /** Value of the label `demo`, by which VMs of this demo are told from others. */
  label: string;
  signal: AbortSignal;
  /** Called before each request. */
  before?: (index: number) => Promise<void>;
}

/** Starts the VMs one after another, looks at their memory, and ends them. @throws MayflyError; no VM is left then either. */
export async function runSeries(options: SeriesOptions): Promise<DemoVm[]> {
  const { client, count, label, signal, before } = options;
  const running: { vm: DemoVm; session: Session }[] = [];
  try {
    for (let index = 0; index < count; index += 1) {
      await before?.(index);
      running.push(await startOne(options));
    }
    for (const { vm } of running) {
      vm.uniqueMemoryBytes = (await client.vms.stats(vm.name, { signal })).uniqueMemoryBytes;
    }
    return running.map(({ vm }) => vm);
  } finally {
    for (const { session } of running) session.endInput();
    const ended = Promise.allSettled(running.map(({ session }) => session.exited));
    await Deadline.after(END_LIMIT_MS)
      .race(ended, "the end of the demo's VMs")
      .catch(() => undefined);
    await removeLabelled(client, label);
  }
}

async function startOne({ transport, pool, label, signal }: SeriesOptions): Promise<{ vm: DemoVm; session: Session }> {
  const deadline = Deadline.after(START_LIMIT_MS, signal);
  const first = Promise.withResolvers<{ atMs: number; text: string }>();
  const request = {
    command: [...DEMO_COMMAND],
    stdin: true,
    autoRemove: true,
    labels: { demo: label },
    ...(pool ? {} : { pool: false }),
  };
  const startedMs = nowMs();
  const session = await openSession(
    transport,
    "/v1/vms/run",
    { type: "create", request },
    {
      output(_, bytes) {
        first.resolve({ atMs: nowMs(), text: new TextDecoder().decode(bytes) });
        return undefined;
      },
    },
  );
  const silent = () => first.reject(new MayflyError("internal", "The demo's command ended without output"));
  session.exited.then(silent, first.reject);
  try {
    const { atMs, text } = await deadline.race(first.promise, "the first output of a VM");
    const { name, clone } = await session.started;
    const times = { readyMs: clone.readyMs ?? 0, firstOutputMs: atMs - startedMs };
    return { session, vm: { name, path: clone.path, ...times, said: text.trim(), uniqueMemoryBytes: 0 } };
  } catch (error) {
    session.close();
    throw error;
  }
}

/** Removes what is left of a demo's VMs; normally nothing is. */
async function removeLabelled(client: Client, label: string): Promise<void> {
  const left = (await client.vms.list()).filter(({ labels }) => labels["demo"] === label);
  for (const { id } of left) await client.vms.remove(id, { force: true }).catch(() => undefined);
}
