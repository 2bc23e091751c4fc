/** What a crowd costs: how fast it starts, what it takes of memory and CPU time when it is idle, whether all of it answers, and how it goes. */
import { MayflyError } from "../../src/contract/errors.ts";
import { nowMs } from "../../src/sys/deadline.ts";
import { cpuTimeUsOf } from "../../src/sys/process.ts";
import { pause } from "../pace.ts";
import type { Listener } from "../prepare.ts";
import type { Samples, Subject } from "../samples.ts";
import type { Crowd } from "./crowd.ts";
import { rssBytesOf } from "./engine-process.ts";
import { type GroupMemory, ownBytes } from "./group-files.ts";
import { several } from "./several.ts";

/** Idle instances are left alone for so long at least: guests have things to do in the first seven seconds, and translate code for them. */
const REST_MS = 10_000;
/** Then until their memory changes by less than a hundredth within this time, */
const STEADY_MS = 2000;
const STEADY_PART = 0.01;
/** or this has passed. */
const STEADY_LIMIT_MS = 60_000;
/** Starts that fail one after another, after which the rest is not tried. */
const GIVE_UP_AFTER = 10;
/** Parts of the run in which the engine's CPU time for a start is told: it must not grow from part to part. */
const PARTS = 10;
/** Starts of a part at least: CPU time of a process is counted in hundredths of a second. */
const LEAST_OF_PART = 10;

/** What is measured of a crowd. */
export interface CrowdCase {
  crowd: Crowd;
  subject: Subject;
  count: number;
  concurrency: number;
  idleSeconds: number;
}

/** Measures a crowd. One instance before it, which is removed, has paid for what is done once. @throws when nothing starts, and `cancelled`. */
export async function measureCrowd(measured: CrowdCase, samples: Samples, listener: Listener): Promise<void> {
  const { crowd, subject, count, concurrency } = measured;
  const { signal } = listener;
  const progress = (text: string) => listener.progress(`${subject}: ${text}`);
  progress("one first");
  await oneFirst(crowd, signal);
  const before = { memory: crowd.group.memory(), processes: crowd.group.pids().length };
  progress(`starting ${count}`);
  const { ids, elapsedMs } = await startAll(measured, samples, listener);
  const rest = crowd.rest;
  if (rest !== undefined) {
    progress("bringing all to rest");
    await several(ids, concurrency, (id) => rest(id, signal));
  }
  progress("leaving all alone");
  await settle(crowd, signal);
  addMemory(samples, measured, "", before.memory, ids.length);
  progress("idle");
  await measureIdle(measured, samples, ids.length, signal);
  progress("asking all");
  const { failed, elapsedMs: answersMs } = await askAll(measured, ids, samples, listener);
  if (failed === 0 && ids.length === count) samples.add(subject, "until-all-answered", "ms", elapsedMs + answersMs);
  await settle(crowd, signal);
  addMemory(samples, measured, "-used", before.memory, ids.length);
  progress("removing all");
  const removedMs = nowMs();
  await several(ids, concurrency, (id) => crowd.remove(id));
  samples.add(subject, "remove-all", "ms", nowMs() - removedMs);
  await settle(crowd, signal);
  samples.add(subject, "processes-left", "count", Math.max(0, crowd.group.pids().length - before.processes));
  samples.add(subject, "memory-left", "bytes", Math.max(0, ownBytes(crowd.group.memory()) - ownBytes(before.memory)));
}

/** Starts, asks and removes one, so that what an engine does once is done. */
export async function oneFirst(crowd: Crowd, signal: AbortSignal): Promise<void> {
  const id = await crowd.start(signal);
  await crowd.rest?.(id, signal);
  await crowd.answer(id, signal);
  await crowd.remove(id);
  await settle(crowd, signal);
}

/** Resolves when idle instances have become as small as they get. */
export async function settle(crowd: Crowd, signal: AbortSignal): Promise<void> {
  await pause(REST_MS, signal);
  if (crowd.settle !== undefined) return crowd.settle(signal);
  const untilMs = nowMs() + STEADY_LIMIT_MS;
  for (let last = ownBytes(crowd.group.memory()); nowMs() < untilMs; ) {
    await pause(STEADY_MS, signal);
    const now = ownBytes(crowd.group.memory());
    if (Math.abs(now - last) <= last * STEADY_PART) return;
    last = now;
  }
}

/** Starts as many as wanted, some at a time; those that fail are counted as not answering. */
async function startAll(
  { crowd, subject, count, concurrency }: CrowdCase,
  samples: Samples,
  { signal, note }: Listener,
): Promise<{ ids: string[]; elapsedMs: number }> {
  const ids: string[] = [];
  let inSequence = 0;
  const engine = new EngineParts(
    crowd,
    subject,
    Math.min(count, Math.max(LEAST_OF_PART, Math.floor(count / PARTS))),
    samples,
  );
  const [startedMs, beforeUs] = [nowMs(), crowd.group.cpuUs()];
  await several(Array(count).keys(), concurrency, async (index) => {
    if (inSequence >= GIVE_UP_AFTER) return samples.add(subject, "unanswered", "count", 1);
    const beginMs = nowMs();
    try {
      ids.push(await crowd.start(signal));
      samples.add(subject, "start", "ms", nowMs() - beginMs);
      engine.started(ids.length);
      inSequence = 0;
    } catch (error) {
      if (signal.aborted) throw error;
      if (inSequence === 0) note(`${subject}: start ${index + 1} failed: ${messageOf(error)}`);
      samples.add(subject, "unanswered", "count", 1);
      inSequence += 1;
      if (inSequence === GIVE_UP_AFTER) note(`${subject}: ${inSequence} starts in sequence failed; no more are tried`);
    }
  });
  const elapsedMs = nowMs() - startedMs;
  if (ids.length === 0) throw new MayflyError("internal", `None of ${count} could be started`);
  samples.add(subject, "starts-per-second", "per-second", (ids.length * 1000) / elapsedMs);
  samples.add(subject, "cpu-per-start", "ms", (crowd.group.cpuUs() - beforeUs) / 1000 / ids.length);
  return { ids, elapsedMs };
}

/** The engine's CPU time for a start, part by part. */
class EngineParts {
  #atUs: number;

  constructor(
    private readonly crowd: Crowd,
    private readonly subject: Subject,
    private readonly size: number,
    private readonly samples: Samples,
  ) {
    this.#atUs = engineCpuUs(crowd);
  }

  /** So many have been started. */
  started(count: number): void {
    if (this.crowd.enginePid === undefined || count % this.size !== 0) return;
    const nowUs = engineCpuUs(this.crowd);
    this.samples.add(this.subject, "engine-cpu-per-start", "ms", (nowUs - this.#atUs) / 1000 / this.size);
    this.#atUs = nowUs;
  }
}

function engineCpuUs({ enginePid }: Crowd): number {
  return enginePid === undefined ? 0 : cpuTimeUsOf(enginePid);
}

/** Memory of one idle instance, in its parts; the engine's is in it, divided. @param suffix of the metrics' names. */
function addMemory(
  samples: Samples,
  { crowd, subject }: CrowdCase,
  suffix: string,
  before: GroupMemory,
  count: number,
): void {
  const now = crowd.group.memory();
  const each = (of: (memory: GroupMemory) => number) => (of(now) - of(before)) / count;
  samples.add(subject, `memory${suffix}`, "bytes", each(ownBytes));
  samples.add(
    subject,
    `memory-anonymous${suffix}`,
    "bytes",
    each(({ anonymousBytes }) => anonymousBytes),
  );
  samples.add(
    subject,
    `memory-shmem${suffix}`,
    "bytes",
    each(({ shmemBytes }) => shmemBytes),
  );
  samples.add(
    subject,
    `memory-kernel${suffix}`,
    "bytes",
    each(({ kernelBytes }) => kernelBytes),
  );
  samples.add(
    subject,
    `page-cache${suffix}`,
    "bytes",
    each(({ pageCacheBytes }) => pageCacheBytes),
  );
  const { enginePid } = crowd;
  if (enginePid !== undefined) samples.add(subject, `engine-rss${suffix}`, "bytes", rssBytesOf(enginePid));
}

/** CPU time of everything, for each instance and in all, and of the engine, in milliseconds each second. */
async function measureIdle(
  { crowd, subject, idleSeconds }: CrowdCase,
  samples: Samples,
  count: number,
  signal: AbortSignal,
): Promise<void> {
  const at = () => ({ ms: nowMs(), allUs: crowd.group.cpuUs(), engineUs: engineCpuUs(crowd) });
  const before = at();
  await pause(idleSeconds * 1000, signal);
  const after = at();
  const seconds = (after.ms - before.ms) / 1000;
  const allMs = (after.allUs - before.allUs) / 1000 / seconds;
  samples.add(subject, "idle-cpu", "ms", allMs / count);
  samples.add(subject, "idle-cpu-all", "ms", allMs);
  if (crowd.enginePid !== undefined) {
    samples.add(subject, "engine-idle-cpu", "ms", (after.engineUs - before.engineUs) / 1000 / seconds);
  }
}

/** One command in each. @returns how many did not answer, and how long all took, in milliseconds. */
async function askAll(
  { crowd, subject, concurrency }: CrowdCase,
  ids: readonly string[],
  samples: Samples,
  { signal, note }: Listener,
): Promise<{ failed: number; elapsedMs: number }> {
  const startedMs = nowMs();
  let failed = 0;
  await several(ids, concurrency, async (id) => {
    const beginMs = nowMs();
    try {
      await crowd.answer(id, signal);
      samples.add(subject, "answer", "ms", nowMs() - beginMs);
      samples.add(subject, "unanswered", "count", 0);
    } catch (error) {
      if (signal.aborted) throw error;
      if (failed === 0) note(`${subject}: ${id} does not answer: ${messageOf(error)}`);
      failed += 1;
      samples.add(subject, "unanswered", "count", 1);
    }
  });
  return { failed, elapsedMs: nowMs() - startedMs };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
