/** One QEMU process: spawned through the launcher with listening sockets, watched, killed, its slot given back. */
import { MayflyError } from "../contract/errors.ts";
import { withTimersDelayed } from "../machine/saved-timers.ts";
import { QmpClient } from "../qmp/client.ts";
import type { Deadline } from "../sys/deadline.ts";
import { closeFd, listenUnix, socketPair, writeAll } from "../sys/libc.ts";
import { buryCopy, endCopy, type ParentProcess } from "../sys/parent-process.ts";
import {
  type ChildExit,
  type DetachedChild,
  ForeignProcess,
  identifyProcess,
  killChild,
  openDevice,
  openForAppending,
  openForReading,
  openForWriting,
  type ProcessIdentity,
  spawnDetached,
  tailOfFile,
} from "../sys/process.ts";
import { LIMITS_MS } from "./config.ts";
import { CHILD_FDS, type QemuPlan } from "./plan.ts";
import type { RecordedQemu, Records } from "./records.ts";
import type { Slot, Slots } from "./slots.ts";

/** Lines of QEMU's own that say nothing: the placeholder network has no host side. */
const NOISE = /^.*warning: hub 0 is not connected to host network\n?/gm;
const TAIL_BYTES = 4096;
const SIGKILL = 9;
/** How long after it goes on a guest gets its first timer interrupt, at the earliest: about as long as a clone takes to be ready on a slow machine. */
const TIMER_DELAY_NS = 60_000_000n;

/** A QEMU process that runs, ours or adopted. */
export class QemuProcess {
  #stateFd: number | undefined;
  #qmp: Promise<QmpClient> | undefined;
  #released = false;
  #letGo = false;
  /** There is a session whose end tells that one that is not our child has ended. */
  #isWatched = false;
  /** Resolves when no program has it, or its copy, stopped. */
  #kept: Promise<unknown> = Promise.resolve();
  /** It has ended, and what is left of it is to be given back. */
  #hasEnded = false;
  /** Of our child: how it has ended, where Bun does not see that. */
  #onBuried: ((exit: ChildExit) => void) | undefined;
  /** Of one that is not our child: it has ended, or is to. */
  #onGone: ((signal: ChildExit["signal"]) => void) | undefined;
  /** Resolves when it has ended, however. */
  readonly exited: Promise<ChildExit>;

  private constructor(
    readonly slot: Slot,
    readonly identity: ProcessIdentity,
    exited: Promise<ChildExit>,
    stateFd: number | undefined,
    private readonly slots: Slots,
    private readonly records: Records,
    private readonly foreign: ForeignProcess | undefined,
  ) {
    this.#stateFd = stateFd;
    this.exited = exited.then(async (exit) => {
      this.#hasEnded = true;
      // With who keeps it a copy ends that it has begun, in this slot's control group.
      await this.#kept;
      this.#release();
      return exit;
    });
  }

  get pid(): number {
    return this.identity.pid;
  }

  /** What it is recorded as, so that a later daemon can adopt or reap it. */
  get record(): RecordedQemu {
    return recordOf(this.identity, this.slot);
  }

  /**
   * Spawns a QEMU in a slot of its own. The plan is made from the slot, since uid and control group are in it.
   * @throws `qemu_spawn_failed`, `limit_reached`; nothing is left of it then.
   */
  static spawn(slots: Slots, records: Records, planFor: (slot: Slot) => QemuPlan): QemuProcess {
    const slot = slots.take();
    const opened: number[] = [];
    let child: DetachedChild | undefined;
    try {
      const qmp = listenUnix(slot.qmpPath, 4);
      opened.push(qmp);
      const agent = listenUnix(slot.agentPath, 4);
      opened.push(agent);
      const plan = planFor(slot);
      let ours: number | undefined;
      let theirs: number;
      if (plan.imagePath === undefined) [ours, theirs] = socketPair();
      else theirs = openForReading(plan.imagePath);
      opened.push(theirs, ...(ours === undefined ? [] : [ours]));
      const descriptors = [qmp, agent, theirs];
      if (plan.imageBasePath !== undefined) {
        const base = openForReading(plan.imageBasePath);
        opened.push(base);
        descriptors.push(base);
      }
      if (plan.opensKvm) {
        const kvm = openDevice("/dev/kvm");
        opened.push(kvm);
        descriptors.push(kvm);
      }
      child = spawnDetached({ ...plan, descriptors, logPath: slot.logPath });
      const identity = identifyProcess(child.pid);
      if (identity === undefined) throw new Error("it ended at once");
      records.addQemu(recordOf(identity, slot));
      if (ours !== undefined) opened.splice(opened.indexOf(ours), 1);
      const { promise: buried, resolve } = Promise.withResolvers<ChildExit>();
      const exited = Promise.race([child.exited, buried]);
      const qemu = new QemuProcess(slot, identity, exited, ours, slots, records, undefined);
      qemu.#onBuried = resolve;
      return qemu;
    } catch (error) {
      const tail = tailOfFile(slot.logPath, TAIL_BYTES);
      if (child === undefined) slots.release(slot);
      else {
        killChild(child.pid);
        child.exited.then(() => slots.release(slot));
      }
      if (error instanceof MayflyError) throw error;
      const why = error instanceof Error ? error.message : String(error);
      throw new MayflyError("qemu_spawn_failed", `Cannot start QEMU: ${why}`, {
        cause: error,
        details: { stderrTail: tail },
      });
    } finally {
      for (const fd of opened) closeFd(fd);
    }
  }

  /**
   * Copies a QEMU that stands still, into a slot of its own, which `prepare` may set limits of.
   * @param parent the process that stands still, and the slot of the QEMU that it is, or is a copy of.
   * @param isLast no other copy of it is wanted.
   * @throws `qemu_spawn_failed`, `limit_reached`; nothing is left of the copy then.
   */
  static async copy(
    slots: Slots,
    records: Records,
    parent: { process: ParentProcess; slot: Slot },
    prepare: (slot: Slot) => void,
    isLast = false,
  ): Promise<QemuProcess> {
    const slot = slots.take(parent.slot);
    const opened: number[] = [];
    const open = (fd: number) => opened[opened.push(fd) - 1] ?? fd;
    let pid: number | undefined;
    try {
      const descriptors = new Map<number, number>([
        [CHILD_FDS.qmp, open(listenUnix(slot.qmpPath, 4))],
        [CHILD_FDS.agent, open(listenUnix(slot.agentPath, 4))],
      ]);
      const log = open(openForAppending(slot.logPath));
      for (const output of [1, 2]) descriptors.set(output, log);
      prepare(slot);
      const groups = slot.cgroup.procsFiles.map((file) => open(openForWriting(file)));
      pid = await parent.process.copy({ uid: slot.uid, descriptors, groups, isLast });
      const identity = identifyProcess(pid);
      const foreign = identity === undefined ? undefined : ForeignProcess.open(identity);
      if (identity === undefined || foreign === undefined) throw new Error("it ended at once");
      records.addQemu(recordOf(identity, slot));
      return QemuProcess.#watched(slot, identity, foreign, slots, records, pid);
    } catch (error) {
      if (pid !== undefined) endCopy(pid);
      slots.release(slot);
      if (error instanceof MayflyError) throw error;
      const why = error instanceof Error ? error.message : String(error);
      throw new MayflyError("qemu_spawn_failed", `Cannot copy QEMU ${parent.process.pid}: ${why}`, { cause: error });
    } finally {
      for (const fd of opened) closeFd(fd);
    }
  }

  /**
   * `keeper` stops it: for good, or for a moment. One that is killed meanwhile is not Bun's to wait for when Bun is told, and later it is not
   * told again.
   */
  isKeptBy(keeper: ParentProcess): void {
    this.#kept = Promise.all([this.#kept, keeper.gone]);
    keeper.gone.then(() => {
      const exit = buryCopy(this.pid);
      if (exit !== undefined) this.#onBuried?.(exit);
    });
  }

  /** Ends the QEMU of an earlier daemon, if it is still there, and frees its slot. */
  static reap(record: RecordedQemu, slots: Slots, records: Records): void {
    const slot = slots.reserve(record.slot, record.owners ?? []);
    using foreign = ForeignProcess.open(record.identity);
    foreign?.signal(SIGKILL);
    foreign?.waitForEnd(LIMITS_MS.exit);
    records.removeQemu(record.identity);
    slots.release(slot);
  }

  /** Takes over the QEMU of an earlier daemon, without a word to it yet. @returns undefined when it is gone; its slot is clean then. */
  static adopt(record: RecordedQemu, slots: Slots, records: Records): QemuProcess | undefined {
    const slot = slots.reserve(record.slot, record.owners ?? []);
    const foreign = ForeignProcess.open(record.identity);
    if (foreign === undefined) {
      slots.release(slot);
      records.removeQemu(record.identity);
      return undefined;
    }
    return QemuProcess.#watched(slot, record.identity, foreign, slots, records, undefined);
  }

  /** One that Bun does not wait for: its QMP session tells that it has ended. @param copy its pid, if it is a child of ours for all that. */
  static #watched(
    slot: Slot,
    identity: ProcessIdentity,
    foreign: ForeignProcess,
    slots: Slots,
    records: Records,
    copy: number | undefined,
  ): QemuProcess {
    const { promise, resolve } = Promise.withResolvers<ChildExit>();
    const qemu = new QemuProcess(slot, identity, promise, undefined, slots, records, foreign);
    qemu.#onGone = (signal) => {
      if (qemu.#letGo || qemu.#released) return;
      // Its sockets close a moment before it is gone and its slot is free.
      foreign.signal(SIGKILL);
      foreign.waitForEnd(LIMITS_MS.teardown);
      resolve((copy === undefined ? undefined : buryCopy(copy)) ?? { exitCode: null, signal });
    };
    return qemu;
  }

  /** The QMP session, connected at its first use. */
  qmp(deadline: Deadline): Promise<QmpClient> {
    return this.#qmp ?? this.#connect(deadline);
  }

  /** Runs a command without arguments: with a session that has to be connected first, in the same round trip. */
  async run(command: string, deadline: Deadline): Promise<void> {
    if (this.#qmp === undefined) await this.#connect(deadline, command);
    else await (await this.#qmp).execute(command, undefined, deadline);
  }

  #connect(deadline: Deadline, first?: string): Promise<QmpClient> {
    const session = QmpClient.connect(this.slot.qmpPath, deadline, first);
    // QEMU holds its QMP socket to its end: of one that is not our child, the session's end is the event that it has ended.
    session.then(
      (qmp) => {
        this.#isWatched = true;
        return qmp.closed.then(() => this.#onGone?.(null));
      },
      (error: unknown) => {
        // One that keeps silent is there.
        const isThere = error instanceof MayflyError && ["deadline_exceeded", "cancelled"].includes(error.code);
        if (!isThere) this.#onGone?.("SIGKILL");
      },
    );
    this.#qmp = this.untilExit(session, "connecting to QMP");
    return this.#qmp;
  }

  /** Ends the QMP session; the next use connects again. */
  async disconnect(): Promise<void> {
    const session = this.#qmp;
    this.#qmp = undefined;
    (await session)?.close();
  }

  /**
   * Writes a device state into the socket on which it blocks: it loads and resumes by itself. Its guest's next timer interrupt is put off, so that
   * the agent answers first (docs/adr/0041-where-a-template-stops.md).
   */
  loadState(deviceState: Uint8Array): void {
    if (this.#stateFd === undefined) throw new MayflyError("internal", "The device state was loaded already");
    const fd = this.#stateFd;
    this.#stateFd = undefined;
    try {
      writeAll(fd, withTimersDelayed(deviceState, TIMER_DELAY_NS), `the state socket of QEMU ${this.pid}`);
    } catch (cause) {
      // It has ended, which is known a moment later, and then says why.
      throw new MayflyError("connection_failed", `QEMU ${this.pid} does not take its device state`, { cause });
    } finally {
      closeFd(fd);
    }
  }

  /** Closes the state socket of a QEMU that boots and will load nothing. */
  dropStateSocket(): void {
    if (this.#stateFd !== undefined) closeFd(this.#stateFd);
    this.#stateFd = undefined;
  }

  /** Waits for `promise`, or fails as soon as QEMU ends, with the end of what it printed. */
  async untilExit<T>(promise: Promise<T>, stage: string): Promise<T> {
    const { promise: ended, reject } = Promise.withResolvers<never>();
    const watch = this.exited.then((exit) => reject(this.exitError(exit, stage)));
    watch.catch(() => undefined);
    ended.catch(() => undefined);
    try {
      return await Promise.race([promise, ended]);
    } catch (error) {
      // A broken connection is often the first sign of QEMU's end: prefer its exit, which is known within a moment.
      if (!(error instanceof MayflyError) || error.kind !== "unavailable" || error.code === "qemu_exited") throw error;
      const exit = await Promise.race([
        this.exited,
        new Promise<undefined>((r) => setTimeout(() => r(undefined), 100)),
      ]);
      throw exit === undefined ? error : this.exitError(exit, stage);
    }
  }

  #lastTail = "";

  /** The error for QEMU's end during `stage`. */
  exitError(exit: ChildExit, stage: string): MayflyError {
    // How one ended that is not our child, nobody tells us.
    const known = exit.exitCode === null ? "" : ` with code ${exit.exitCode}`;
    const how = exit.signal === null ? known : ` by ${exit.signal}`;
    const tail = this.#lastTail;
    const last = tail.trimEnd().split("\n").at(-1) ?? "";
    return new MayflyError("qemu_exited", `QEMU ended${how} while ${stage}${last === "" ? "" : `: ${last}`}`, {
      stage,
      details: {
        stderrTail: tail,
        ...(exit.exitCode === null ? {} : { exitCode: exit.exitCode }),
        ...(exit.signal === null ? {} : { signal: exit.signal }),
      },
    });
  }

  /** Ends it now. Returns when it has ended and its slot is free. */
  async kill(): Promise<void> {
    if (this.foreign === undefined) {
      if (!this.#hasEnded) killChild(this.pid);
    } else if (!this.#released) {
      this.foreign.signal(SIGKILL);
      if (!this.#isWatched) this.#onGone?.("SIGKILL");
    }
    await this.exited;
  }

  /** Disconnects from it for good: it runs on, its record stays, and its end is no longer seen. */
  letGo(): void {
    if (this.#letGo) return;
    this.#letGo = true;
    this.dropStateSocket();
    this.#qmp?.then((qmp) => qmp.close()).catch(() => undefined);
    if (!this.#released) this.foreign?.[Symbol.dispose]();
  }

  #release(): void {
    if (this.#released || this.#letGo) return;
    this.#released = true;
    this.#lastTail = tailOfFile(this.slot.logPath, TAIL_BYTES).replace(NOISE, "");
    this.dropStateSocket();
    this.#qmp?.then((qmp) => qmp.close()).catch(() => undefined);
    this.foreign?.[Symbol.dispose]();
    this.records.removeQemu(this.identity);
    this.slots.release(this.slot);
  }
}

function recordOf(identity: ProcessIdentity, { number, owners }: Slot): RecordedQemu {
  return { identity, slot: number, owners };
}
