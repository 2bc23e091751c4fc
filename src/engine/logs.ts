/** Kept output of VMs: reading, following, and attaching with what came before. */
import { readLog } from "../sys/append-log.ts";
import type { Events } from "./events.ts";
import type { Engine, LogChunk, OutputChannel, OutputSink, ProcessSession } from "./interface.ts";
import { LOG_NAMES, type RunningVm } from "./running-vm.ts";
import type { Vms } from "./vms.ts";

const CHANNELS: readonly OutputChannel[] = [1, 2];

/** What reading logs needs to know of VMs. */
export interface LogParts {
  vms: Vms;
  events: Events;
}

/**
 * Both streams' kept output, stdout's then stderr's; with `follow`, what comes after, as it comes, until the VM has ended: one that is
 * suspended is waited for.
 */
export async function* readLogs(
  parts: LogParts,
  ref: string,
  options: Parameters<Engine["logs"]>[1],
): AsyncGenerator<LogChunk> {
  const { vms } = parts;
  const vm = vms.get(ref);
  const { signal } = options;
  let running = vm.finishedAt === null && vm.state !== "suspended" ? vms.running(vm.id) : undefined;
  const offsets = { 1: 0, 2: 0 };
  let change = options.follow && running !== undefined ? watchLogs(running, signal) : undefined;
  for (const channel of CHANNELS) {
    if (options.tail !== undefined) offsets[channel] = await tailOffset(vms, vm.id, channel, options.tail);
    yield* readFrom(vms, vm.id, channel, offsets);
  }
  while (options.follow && !signal.aborted) {
    const more = (await change?.next()) ?? false;
    for (const channel of CHANNELS) yield* readFrom(vms, vm.id, channel, offsets);
    if (more) continue;
    running = await untilResumed(parts, vm.id, signal);
    if (running === undefined) return;
    change = watchLogs(running, signal);
    for (const channel of CHANNELS) yield* readFrom(vms, vm.id, channel, offsets);
  }
}

/** Waits while a VM is suspended. @returns it as it runs again; undefined when it has ended, or the signal fires. */
async function untilResumed(
  { vms, events }: LogParts,
  id: string,
  signal: AbortSignal,
): Promise<RunningVm | undefined> {
  while (vms.record(id)?.vm.state === "suspended" && !signal.aborted) {
    const { promise, resolve } = Promise.withResolvers<void>();
    const stop = events.subscribe((event) => event.id === id && resolve());
    signal.addEventListener("abort", () => resolve(), { once: true });
    await promise;
    stop();
  }
  return vms.runningOf(id)?.isEnding === false ? vms.runningOf(id) : undefined;
}

async function* readFrom(
  vms: Vms,
  id: string,
  channel: OutputChannel,
  offsets: Record<OutputChannel, number>,
): AsyncGenerator<LogChunk> {
  for await (const { offset, chunk } of readLog(vms.directory(id), LOG_NAMES[channel], offsets[channel])) {
    offsets[channel] = offset + chunk.length;
    yield { channel, chunk };
  }
}

/** Offset at which the last `lines` lines begin. */
async function tailOffset(vms: Vms, id: string, channel: OutputChannel, lines: number): Promise<number> {
  const starts: number[] = [];
  let atStart = true;
  let end = 0;
  for await (const { offset, chunk } of readLog(vms.directory(id), LOG_NAMES[channel], 0)) {
    for (let index = 0; index < chunk.length; index++) {
      if (atStart) starts.push(offset + index);
      atStart = chunk[index] === 10;
    }
    if (starts.length > lines + 1) starts.splice(0, starts.length - lines - 1);
    end = offset + chunk.length;
  }
  return lines === 0 ? end : (starts.at(-lines) ?? starts[0] ?? end);
}

/** What is watched of a VM. */
export interface WatchedLogs {
  logs?: Record<"stdout" | "stderr", { watch(onGrowth: () => void): () => void }> | undefined;
  ended: Promise<unknown>;
}

/** Tells when a VM's logs have grown, and that it has ended (false, from then on). */
export function watchLogs(running: WatchedLogs, signal: AbortSignal): { next: () => Promise<boolean> } {
  let pending = Promise.withResolvers<void>();
  let over = false;
  const tell = (more: boolean) => {
    over ||= !more;
    pending.resolve();
  };
  const stops = [running.logs?.stdout, running.logs?.stderr].map((log) => log?.watch(() => tell(true)));
  signal.addEventListener("abort", () => tell(false), { once: true });
  running.ended.then(() => {
    for (const stop of stops) stop?.();
    tell(false);
  });
  return {
    next: async () => {
      await pending.promise;
      if (!over) pending = Promise.withResolvers<void>();
      return !over;
    },
  };
}

/**
 * Joins the main process. With `logs`, kept output comes first; what arrives meanwhile waits for it, so that nothing is
 * missed or doubled: the guest is held back by the sink's promise.
 */
export function attachWithLogs(vms: Vms, ref: string, sink: OutputSink, options: { logs: boolean }): ProcessSession {
  const main = vms.main(ref);
  const running = vms.running(ref);
  if (!options.logs || running.logs === undefined) return main.session(sink);
  const limits = { 1: running.logs.stdout.offset, 2: running.logs.stderr.offset };
  const replayed = replay(vms, running.id, sink, limits);
  const delayed: OutputSink = {
    output: (channel, chunk) => {
      const copy = chunk.slice();
      return replayed.then(() => sink.output(channel, copy));
    },
  };
  const session = main.session(delayed);
  const exited = session.exited.then(async (status) => {
    await replayed;
    return status;
  });
  exited.catch(() => undefined);
  return { ...session, exited };
}

async function replay(vms: Vms, id: string, sink: OutputSink, limits: Record<OutputChannel, number>): Promise<void> {
  for (const channel of CHANNELS) {
    for await (const { offset, chunk } of readLog(vms.directory(id), LOG_NAMES[channel], 0)) {
      const part = chunk.subarray(0, Math.max(0, limits[channel] - offset));
      if (part.length > 0) await sink.output(channel, part);
    }
  }
}
