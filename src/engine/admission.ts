/**
 * Admission: a start is refused when the worst case that `--overcommit` allows would be exceeded, and waits for memory to be given back when the
 * host has too little right now. Two rules because they fail apart: guests may write all that they have long after they were let in, and other
 * programs of the host may have its memory although all guests are small.
 */
import type { SystemInfo, Vm } from "../contract/api.ts";
import { type ErrorOptions, MayflyError } from "../contract/errors.ts";
import { type Accelerator, SHAPE_MEMORY_MIB } from "../contract/machine.ts";
import { TRANSLATION_CACHE_MIB } from "../machine/arguments.ts";
import type { Clock } from "../sys/clock.ts";
import type { Deadline } from "../sys/deadline.ts";
import type { EngineConfig } from "./config.ts";
import { Gate } from "./gate.ts";
import type { Metrics } from "./metrics.ts";

const MIB = 2 ** 20;
/** QEMU's own heap, stacks and page tables at most (13 to 16 MiB with the QEMUs of docs/PERFORMANCE.md). */
const QEMU_HEAP_BYTES = 16 * MIB;
/** What a start takes of the host before anything has happened in the VM: QEMU's own and the pages that the guest wakes up with. */
const START_BYTES = 16 * MIB;
/** How old numbers may be that cost time: /proc/meminfo is read, and VMs are added up, so seldom that starts in a row do not feel it. */
const SAMPLE_MS = 100;
/** What is waited for, in the words of errors. */
const WAIT = "memory to be given back";

/** What is asked for. */
export interface Wanted {
  /** Of each VM. */
  memoryBytes: number;
  /** How many such VMs; 1 unless told. All of them are let in, or none. */
  count?: number;
  /** What cannot be done if it is refused, e.g. `resume VM web`; unless told, a start of so many VMs. */
  what?: string;
}

/** What admission looks at. */
export interface AdmissionParts {
  config: Pick<EngineConfig, "overcommit" | "memoryReserveBytes">;
  /** Read whenever something is counted: another QEMU or kernel that is put in force may change it. */
  host: Readonly<{ accelerator: Accelerator }>;
  vms: { list(): readonly Pick<Vm, "id" | "state" | "memoryBytes" | "finishedAt">[] };
  /** Ends prepared VMs. @returns whether there were any. */
  pools: { drain(): Promise<boolean> };
  memory: { totalBytes: number; availableBytes(): number };
  clock: Pick<Clock, "now">;
  metrics: Pick<Metrics, "queued" | "refused">;
}

/** How things were a moment ago, and what was let in since. */
interface Sample {
  atMs: number;
  availableBytes: number;
  /** What starts take that were under way then or were let in since: it is not missing yet. */
  promisedBytes: number;
  /** At least what VMs could take now: some of them may have gone since. */
  committedBytes: number;
}

/** Whether anything gave memory back; and why nothing did, if that has failed. */
interface Relief {
  freed: boolean;
  cause?: unknown;
}

/** Lets VMs in: everything that is about to have a QEMU asks here. */
export class Admission {
  /** Who waits for memory, in order; the one that has it looks for memory to be given back. */
  readonly #turn = new Gate(1);
  /** Suspended VMs that are on their way back. */
  readonly #returning = new Set<string>();
  #sample: Sample | undefined;
  #relief: Promise<Relief> | undefined;
  /** Has something give memory back that can do without it, after the pools. @returns false when nothing is left that could. */
  relieve: () => Promise<boolean> = async () => false;

  constructor(private readonly parts: AdmissionParts) {}

  /** Memory that VMs could take at most together, QEMUs included, in bytes. */
  get limitBytes(): number {
    return Math.floor(this.parts.config.overcommit * this.#hostBytes);
  }

  /** For `system info`. */
  describe(): SystemInfo["memory"] {
    const { config, memory } = this.parts;
    const { bytes: committedBytes } = this.#committed();
    const { overcommit } = config;
    return { overcommit, limitBytes: this.limitBytes, committedBytes, availableBytes: memory.availableBytes() };
  }

  /**
   * Lets VMs in. Where there is memory this waits for nothing and takes 10 to 20 us, with 10 VMs as with 5,000 (in the daemon's JavaScript without
   * its optimizing compiler); each 100 ms 15 us more to read /proc/meminfo, and 0.3 ms per 1,000 VMs to add them up.
   * @param take records the VMs, so that they count: called in the same turn as it is found that they may come. What it throws is thrown on.
   * @throws `memory_overcommitted`; `host_memory_low` when the deadline passes or nothing more can give memory back; `cancelled`.
   */
  async admit<T>(wanted: Wanted, deadline: Deadline, take: () => T): Promise<T> {
    this.#checkWorstCase(wanted);
    if (this.#turn.idle && this.#fits(wanted)) return this.#take(wanted, take);
    this.parts.metrics.queued();
    using _turn = await this.#turn.enterBy(deadline, WAIT, () => this.#low(wanted));
    for (;;) {
      this.#sample = undefined;
      this.#checkWorstCase(wanted);
      if (this.#fits(wanted)) return this.#take(wanted, take);
      const low = () => this.#low(wanted);
      const { freed, cause } = await deadline.race(this.#giveBack(), WAIT, low);
      if (!freed) throw this.#low(wanted, cause);
    }
  }

  /** Has a suspended VM come back, which counts from now on. @throws as {@link admit}, and what `work` throws. */
  async comeBack<T>(
    { id, name, memoryBytes }: Pick<Vm, "id" | "name" | "memoryBytes">,
    deadline: Deadline,
    work: () => Promise<T>,
  ): Promise<T> {
    await this.admit({ memoryBytes, what: `resume VM ${name}` }, deadline, () => this.#returning.add(id));
    try {
      return await work();
    } finally {
      this.#returning.delete(id);
    }
  }

  #take<T>({ memoryBytes, count = 1 }: Wanted, take: () => T): T {
    const sample = this.#sampled();
    const taken = take();
    sample.promisedBytes += count * START_BYTES;
    sample.committedBytes += count * this.#worstCaseBytes(memoryBytes);
    return taken;
  }

  #checkWorstCase(wanted: Wanted): void {
    const wantedBytes = (wanted.count ?? 1) * this.#worstCaseBytes(wanted.memoryBytes);
    const { limitBytes } = this;
    const sample = this.#sampled();
    if (sample.committedBytes + wantedBytes <= limitBytes) return;
    const { bytes: committedBytes, vms } = this.#committed();
    sample.committedBytes = committedBytes;
    if (committedBytes + wantedBytes <= limitBytes) return;
    const { overcommit } = this.parts.config;
    const running = vms === 1 ? "the VM that runs" : `the ${vms.toLocaleString("en-US")} VMs that run`;
    const sum = `with ${running} it could take up to ${inWords(committedBytes + wantedBytes)}`;
    const limit = `${inWords(limitBytes)} is the limit, ${overcommit} times the ${inWords(this.#hostBytes)} that this host has for VMs`;
    const hint = "suspend or remove some, or allow more (mayfly daemon --overcommit)";
    throw this.#refusal("memory_overcommitted", `Cannot ${nameOf(wanted)}: ${sum}, and ${limit}; ${hint}`, {
      details: { committedBytes, limitBytes, wantedBytes, vms },
    });
  }

  /** Whether the host bears it right now. */
  #fits({ count = 1 }: Wanted): boolean {
    const { availableBytes, promisedBytes } = this.#sampled();
    return availableBytes - promisedBytes - count * START_BYTES >= this.parts.config.memoryReserveBytes;
  }

  #sampled(): Sample {
    const atMs = this.parts.clock.now();
    if (this.#sample !== undefined && atMs - this.#sample.atMs < SAMPLE_MS) return this.#sample;
    const { bytes: committedBytes, underWay } = this.#committed();
    const availableBytes = this.parts.memory.availableBytes();
    this.#sample = { atMs, availableBytes, promisedBytes: underWay * START_BYTES, committedBytes };
    return this.#sample;
  }

  #low(wanted: Wanted, cause?: unknown): MayflyError {
    const { memoryReserveBytes: reserveBytes } = this.parts.config;
    const wantedBytes = (wanted.count ?? 1) * START_BYTES;
    const promisedBytes = this.#committed().underWay * START_BYTES;
    const availableBytes = this.parts.memory.availableBytes();
    const promised = promisedBytes === 0 ? "" : `, ${inWords(promisedBytes)} of them for VMs that are being started`;
    const host = `the host has ${inWords(availableBytes)} available${promised}`;
    const need = `it takes ${inWords(wantedBytes)}, and ${inWords(reserveBytes)} must be left`;
    const hint = "suspend or remove VMs, or end other programs";
    return this.#refusal("host_memory_low", `Cannot ${nameOf(wanted)}: ${host}, ${need}; ${hint}`, {
      details: { availableBytes, promisedBytes, reserveBytes, wantedBytes },
      cause,
    });
  }

  #refusal(code: "memory_overcommitted" | "host_memory_low", message: string, options: ErrorOptions): MayflyError {
    this.parts.metrics.refused(code);
    return new MayflyError(code, message, options);
  }

  /** One at a time: whoever has given up may have left one that is under way. */
  #giveBack(): Promise<Relief> {
    const give = async () => {
      try {
        return { freed: (await this.parts.pools.drain()) || (await this.relieve()) };
      } catch (cause) {
        return { freed: false, cause };
      } finally {
        this.#relief = undefined;
      }
    };
    this.#relief ??= give();
    return this.#relief;
  }

  /** What may be shared out among VMs if each took all that it may. */
  get #hostBytes(): number {
    const { config, memory } = this.parts;
    return Math.max(0, memory.totalBytes - config.memoryReserveBytes);
  }

  /**
   * All VMs that have a QEMU, or are about to. One that is paused counts whole, since it may be woken up at any time; a suspended one has none. What
   * pools hold does not count: it goes before anybody is refused.
   */
  #committed(): { bytes: number; vms: number; underWay: number } {
    let [bytes, vms, underWay] = [0, 0, 0];
    for (const { id, state, memoryBytes, finishedAt } of this.parts.vms.list()) {
      if (finishedAt !== null) continue;
      const isReturning = this.#returning.has(id);
      if (state === "suspended" && !isReturning) continue;
      bytes += this.#worstCaseBytes(memoryBytes);
      vms += 1;
      if (state === "creating" || isReturning) underWay += 1;
    }
    return { bytes, vms, underWay };
  }

  /** The machine's memory, which is that of its shape whatever the guest lets its workload have, and QEMU's own. */
  #worstCaseBytes(memoryBytes: number): number {
    const translated = this.parts.host.accelerator === "tcg" ? TRANSLATION_CACHE_MIB * MIB : 0;
    const shapeMiB = SHAPE_MEMORY_MIB.find((size) => size * MIB >= memoryBytes);
    return (shapeMiB === undefined ? memoryBytes : shapeMiB * MIB) + QEMU_HEAP_BYTES + translated;
  }
}

function nameOf({ memoryBytes, count = 1, what }: Wanted): string {
  const size = inWords(memoryBytes);
  return what ?? (count === 1 ? `start a VM with ${size}` : `start ${count} VMs with ${size} each`);
}

function inWords(bytes: number): string {
  return bytes < 1024 * MIB ? `${Math.round(bytes / MIB)} MiB` : `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}
