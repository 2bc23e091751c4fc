/**
 * Merging of equal memory by the kernel (KSM, Linux' admin-guide/mm/ksm.rst) for a crowd whose VMs ask for it: turned on, waited for,
 * counted, and put back as the host had it.
 */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { nowMs } from "../../src/sys/deadline.ts";
import { merging } from "../../src/sys/memory-merging.ts";
import { cpuTimeUsOf } from "../../src/sys/process.ts";
import { pause } from "../pace.ts";
import type { CrowdGroup } from "./group.ts";
import type { GroupMemory } from "./group-files.ts";

const DIRECTORY = "/sys/kernel/mm/ksm";
const PAGE_BYTES = 4096;
/** A file of the directory and what is in it. */
type Setting = readonly [string, string];
/**
 * As fast as the kernel's thread can, while a crowd is waited for. Smart scanning leaves out pages that found no equal so far: it would
 * only take longer until those of later VMs meet them. An advisor would choose `pages_to_scan` itself.
 */
const FAST: readonly Setting[] = [
  ["advisor_mode", "none"],
  ["smart_scan", "0"],
  ["pages_to_scan", "10000"],
  ["sleep_millisecs", "10"],
  ["run", "1"],
];
/** Nothing tells when it has scanned everything. */
const LOOK_AGAIN_MS = 500;
/** Looks without any change: it has nothing to scan. */
const IDLE_LOOKS = 6;
/** A page is compared when it has not changed since the scan before, and merged with one that was compared before it: two scans at least. */
const LEAST_SCANS = 3;
/** Merging is steady when a whole scan has changed what it saves by less than this part of all pages: what it saves alone never stands still. */
const STEADY_PART = 0.01;
const LIMIT_MS = 900_000;

/** What the kernel says of its merging. */
export interface MergeCounts {
  fullScans: number;
  /** Pages that are not there any more, since an equal one is used. */
  savedPages: number;
  /** Those and all others that it has looked at. */
  allPages: number;
  /** Bytes that it needs itself to know what it has scanned: charged to no group. */
  bookkeepingBytes: number;
  /** All that changes while it scans. */
  state: string;
}

/** Why a crowd cannot be merged here; undefined: it can. */
export function mergingMissing(): string | undefined {
  if (merging() === "unsupported") return "this kernel merges no memory of processes that ask for it (KSM, Linux 6.4)";
  try {
    // What it has already: whether it may be written.
    writeFileSync(`${DIRECTORY}/run`, textOf("run"));
    return undefined;
  } catch {
    return `${DIRECTORY} cannot be written`;
  }
}

/** Counts by the text of each file of the kernel's directory. */
export function parseCounts(textOf: (name: string) => string): MergeCounts {
  const value = (name: string) => Number(textOf(name));
  const savedPages = value("pages_sharing") + value("ksm_zero_pages");
  const state = ["full_scans", "pages_scanned", "pages_volatile", "pages_unshared", "pages_sharing"].map(textOf).join();
  return {
    ...{ fullScans: value("full_scans"), savedPages, state },
    allPages: savedPages + value("pages_shared") + value("pages_unshared") + value("pages_volatile"),
    // The kernel's `general_profit` is what it saves less what it needs for that (mm/ksm.c).
    bookkeepingBytes: Math.max(0, savedPages * PAGE_BYTES - value("general_profit")),
  };
}

/** Merging as long as the resources last. If the benchmark is killed, the host's settings are not put back. */
export class Merging {
  readonly #before: readonly Setting[];
  readonly #thread = scanningThread();

  /** Turns it on, at the host's own pace. */
  constructor(resources: AsyncDisposableStack) {
    // The other way round: with an advisor `pages_to_scan` cannot be set.
    this.#before = FAST.map(([name]) => [name, textOf(name)] as const).toReversed();
    resources.defer(() => this.#set(this.#before));
    this.#set([["run", "1"]]);
  }

  /** Resolves when merging is steady. @throws `cancelled`. */
  async settle(signal: AbortSignal): Promise<void> {
    this.#set(FAST);
    try {
      await untilSteady(signal);
    } finally {
      this.#set([...this.#before.filter(([name]) => name !== "run"), ["run", "1"]]);
    }
  }

  /**
   * The group with what the kernel spends on merging: bookkeeping of memory, time of its thread; both of the whole host, so nothing
   * else is to be merged on it. The group's own memory is right as it is: pages are anonymous for the group that they came from, once
   * for all processes that map them, and those for which they stand in are not charged any more.
   */
  countedWith(group: CrowdGroup): CrowdGroup {
    const thread = this.#thread;
    return {
      ...group,
      memory(): GroupMemory {
        const memory = group.memory();
        return { ...memory, kernelBytes: memory.kernelBytes + parseCounts(textOf).bookkeepingBytes };
      },
      cpuUs: () => group.cpuUs() + (thread === undefined ? 0 : cpuTimeUsOf(thread)),
    };
  }

  #set(values: readonly Setting[]): void {
    for (const [name, value] of values) if (value !== "") writeFileSync(`${DIRECTORY}/${name}`, value);
  }
}

async function untilSteady(signal: AbortSignal): Promise<void> {
  const untilMs = nowMs() + LIMIT_MS;
  const first = parseCounts(textOf);
  let [last, atScan, unchanged] = [first, first, 0];
  while (nowMs() < untilMs && unchanged < IDLE_LOOKS) {
    await pause(LOOK_AGAIN_MS, signal);
    const now = parseCounts(textOf);
    unchanged = now.state === last.state ? unchanged + 1 : 0;
    last = now;
    if (now.fullScans === atScan.fullScans) continue;
    const isSteady = Math.abs(now.savedPages - atScan.savedPages) <= now.allPages * STEADY_PART;
    if (isSteady && now.fullScans - first.fullScans >= LEAST_SCANS) return;
    atScan = now;
  }
}

/** The kernel's thread that scans; undefined where it is not seen, as in a container. */
function scanningThread(): number | undefined {
  const commOf = (pid: string) => {
    try {
      return readFileSync(`/proc/${pid}/comm`, "latin1").trim();
    } catch {
      return "";
    }
  };
  const found = readdirSync("/proc").find((name) => /^\d+$/.test(name) && commOf(name) === "ksmd");
  return found === undefined ? undefined : Number(found);
}

/** A setting or count; of one in brackets among others that one. Empty where this kernel has it not. */
function textOf(name: string): string {
  try {
    const text = readFileSync(`${DIRECTORY}/${name}`, "latin1").trim();
    return /\[(\S+)\]/.exec(text)?.[1] ?? text;
  } catch {
    return "";
  }
}
