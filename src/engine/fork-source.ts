/**
 * How the children of a fork come to be. Where their parent runs in an emulator they are copies of its process, which have all that it has translated and
 * share its memory page by page (docs/adr/0043-forks-by-copying-the-process.md); else its state is saved and loaded into QEMUs of their own.
 */
import type { CaptureTimes, ClonePath } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import type { DiskFiles } from "../machine/devices/disk.ts";
import type { Deadline } from "../sys/deadline.ts";
import { ParentProcess } from "../sys/parent-process.ts";
import { writePages } from "../sys/process-memory.ts";
import type { LoadedTemplate } from "../template/store.ts";
import { type Captured, type CaptureResult, captureVm, type GuestObjects, whileStopped } from "./capture.ts";
import { type Clone, copyQemu, letRun } from "./clone.ts";
import type { EngineParts } from "./engine.ts";
import type { GuestSetup } from "./identity.ts";
import { GIVEN_FDS } from "./plan.ts";
import type { QemuProcess } from "./qemu-process.ts";
import type { VmRecord } from "./records.ts";
import { goOn, type ReadyQemu, readyQemu, revive } from "./revive.ts";
import type { RunningVm } from "./running-vm.ts";
import type { CaptureStage, StageClock } from "./stages.ts";

/** A VM that is being forked. */
export interface ForkParent {
  running: RunningVm;
  record: VmRecord;
  template: LoadedTemplate;
}

/** What a fork has cost its parent. */
export interface ForkCost {
  times: CaptureTimes;
  stages: StageClock<CaptureStage>["stages"];
  /** Bytes that were copied for each child. */
  deltaBytes: number;
}

/** What a child is to be. */
export interface ChildPlan {
  disks: DiskFiles;
  setup: GuestSetup;
}

/** A child that goes on, once it does. */
export interface BroughtUp {
  clone: Clone;
  path: ClonePath;
}

/** What children are made of. Disposing it frees what none has taken. */
export interface ForkSource extends Disposable {
  /** Resolves when the parent goes on. */
  cost: Promise<ForkCost>;
  /** Brings up one of them. @param onMain is called with the parent's main process before anything of it is heard. */
  bringUp(
    plan: ChildPlan,
    onMain: (main: GuestObjects["main"]) => void,
    clock: StageClock,
    deadline: Deadline,
  ): Promise<BroughtUp>;
}

/** Copies in a row that fail before forks are made without: a VM is not to stand still twice for what a host does not allow. */
const MAX_FAILURES = 3;

/** Makes copies of running QEMUs, as long as this host lets it. Disposing it ends what is kept for the next one. */
export class ForkCopies implements Disposable {
  #failures = 0;
  /** The program for the next fork, which takes some milliseconds to be started, and its launcher's path. */
  #spare: { process: ParentProcess; launcher: string } | undefined;
  #isClosed = false;

  constructor(private readonly host: EngineParts["host"]) {
    this.#prepare();
  }

  get #isAble(): boolean {
    const { accelerator, config } = this.host;
    return accelerator === "tcg" && config.pool.parent !== false && this.#failures < MAX_FAILURES;
  }

  [Symbol.dispose](): void {
    this.#isClosed = true;
    this.#spare?.process[Symbol.dispose]();
  }

  /** There is none if its launcher could not be started, which whoever starts a QEMU is told. */
  #prepare(): void {
    if (this.#isClosed || !this.#isAble || this.#spare !== undefined) return;
    const { path: launcher } = this.host.config.artifacts.launcher;
    try {
      this.#spare = { process: ParentProcess.spare(launcher, this.host.slots.uids), launcher };
    } catch {
      return;
    }
  }

  #takeSpare(): ParentProcess | undefined {
    const { path } = this.host.config.artifacts.launcher;
    if (this.#spare !== undefined && (this.#spare.process.isGone || this.#spare.launcher !== path)) {
      this.#spare.process[Symbol.dispose]();
      this.#spare = undefined;
    }
    this.#prepare();
    const taken = this.#spare?.process;
    this.#spare = undefined;
    return taken;
  }

  /** Whether a VM can be forked by copying its process: one under emulation, that writes to no file. */
  canCopy({ held }: VmRecord): boolean {
    const { root: _root, ...others } = held.disks;
    return this.#isAble && Object.keys(others).length === 0;
  }

  /**
   * Copies a running VM's QEMU. @returns undefined: it cannot be copied, and goes on.
   * @throws `qemu_exited`, `vm_not_running`, `deadline_exceeded`.
   */
  async take(
    parent: ForkParent,
    record: () => VmRecord | undefined,
    count: number,
    deadline: Deadline,
  ): Promise<ForkSource | undefined> {
    const { qemu } = parent.running.clone;
    const process = this.#takeSpare();
    if (process === undefined) return undefined;
    let hasStoodStill = false;
    const take = async (letGo: () => void) => {
      hasStoodStill = true;
      qemu.isKeptBy(process);
      await process.take(letGo);
    };
    try {
      await deadline.race(process.of(qemu.identity), "a look at the QEMU to be copied");
      const taken = await whileStopped(parent.running, record, take, deadline);
      this.#failures = 0;
      return new CopySource(this.host, parent, process, taken, count);
    } catch (error) {
      process[Symbol.dispose]();
      if (!(error instanceof MayflyError) || error.code !== "qemu_spawn_failed") throw error;
      if (hasStoodStill) this.#failures += 1;
      return undefined;
    } finally {
      this.#prepare();
    }
  }

  /**
   * Writes a QEMU that stands still down as a process image: a copy of it, so that it can go on.
   * @param file is open for writing.
   * @throws `qemu_spawn_failed` if it cannot be copied or has what no image has, `qemu_exited`, `deadline_exceeded`.
   */
  async writeImage(qemu: QemuProcess, file: number, deadline: Deadline): Promise<void> {
    const spare = this.#takeSpare();
    if (spare === undefined) throw new MayflyError("qemu_spawn_failed", `Cannot copy process ${qemu.pid}`);
    using process = spare;
    try {
      const work = async () => {
        await process.of(qemu.identity);
        qemu.isKeptBy(process);
        await process.take(() => undefined);
        await process.writeImage(file, undefined, GIVEN_FDS);
      };
      await deadline.race(work(), "a process image");
    } finally {
      this.#prepare();
    }
  }
}

/** Children that are copies of their parent's process: of its first copy, which stands still; the last of them is that one itself. */
class CopySource implements ForkSource {
  readonly cost: Promise<ForkCost>;
  #left: number;

  constructor(
    private readonly host: EngineParts["host"],
    private readonly parent: ForkParent,
    private readonly process: ParentProcess,
    private readonly taken: CaptureResult<GuestObjects>,
    count: number,
  ) {
    const { times, clock } = taken;
    this.cost = Promise.resolve({ times, stages: clock.stages, deltaBytes: 0 });
    this.#left = count;
  }

  async bringUp(...[plan, onMain, clock, deadline]: Parameters<ForkSource["bringUp"]>): Promise<BroughtUp> {
    const { template, running } = this.parent;
    const { template: mapped } = running.clone;
    const objects = this.taken.value;
    onMain(objects.main);
    this.#left -= 1;
    const source = { process: this.process, slot: running.clone.qemu.slot };
    const qemu = await copyQemu(this.host, source, template, this.#left === 0);
    clock.end("spawn");
    const load = () => letRun(qemu, deadline);
    return { clone: await goOn(qemu, mapped, objects, load, plan.setup, clock, deadline), path: "copy" };
  }

  [Symbol.dispose](): void {
    this.process[Symbol.dispose]();
  }
}

/** How disks follow: to the first child while the parent stands still, from there to the others. */
export interface DiskCopies {
  whileStopped: () => Promise<void>;
  afterwards: () => Promise<void>;
}

/** Children in QEMUs of their own, which are all ready before the parent stands still. */
export class CaptureSource implements ForkSource {
  readonly #ready = Promise.withResolvers<void>();
  #missing: number;
  #captured: Captured | undefined;
  readonly #state: Promise<Captured>;
  readonly cost: Promise<ForkCost>;

  /** @param count children that are brought up. */
  constructor(
    private readonly context: Parameters<typeof readyQemu>[0],
    private readonly parent: ForkParent,
    record: () => VmRecord | undefined,
    count: number,
    disks: DiskCopies,
    deadline: Deadline,
  ) {
    this.#missing = count;
    const captured = this.#capture(record, disks, deadline);
    this.#state = captured.then(({ value }) => value);
    this.cost = captured.then(({ value, times, clock }) => ({
      ...{ times, stages: clock.stages },
      deltaBytes: value.pages.deltaBytes,
    }));
    for (const promise of [this.#state, this.cost]) promise.catch(() => undefined);
  }

  async #capture(
    record: () => VmRecord | undefined,
    disks: DiskCopies,
    deadline: Deadline,
  ): Promise<CaptureResult<Captured>> {
    await this.#ready.promise;
    const copyDisks = async (captured: Captured) => {
      await disks.whileStopped();
      return { value: captured, goesOn: true };
    };
    const result = await captureVm(this.parent.running, record, copyDisks, deadline);
    this.#captured = result.value;
    await disks.afterwards();
    return result;
  }

  async bringUp(...[plan, onMain, clock, deadline]: Parameters<ForkSource["bringUp"]>): Promise<BroughtUp> {
    const { template } = this.parent;
    const { root, ...others } = plan.disks;
    const atOnce = root === undefined ? {} : { root };
    const ready = await readyQemu(this.context, template, atOnce, deadline).catch((error: unknown) => {
      this.#ready.reject(error);
      throw error;
    });
    this.#missing -= 1;
    if (this.#missing === 0) this.#ready.resolve();
    clock.end("spawn");
    let taken: Captured;
    try {
      taken = await ready.qemu.untilExit(this.#state, "waiting for the state of its parent");
    } catch (error) {
      await ready.qemu.kill();
      throw error;
    }
    onMain(taken.main);
    const write = (pid: number, mapping: ReadyQemu["mapping"]) => writePages(pid, mapping, taken.pages);
    const setup = { ...plan.setup, disks: others };
    const clone = await revive(ready, template, { ...taken, writePages: write }, setup, clock, deadline);
    return { clone, path: ready.path };
  }

  [Symbol.dispose](): void {
    this.#captured?.[Symbol.dispose]();
  }
}
