/**
 * Taking a running VM's state: its workload is frozen, its vCPUs stopped, devices saved and the pages that it has written copied; then it
 * goes on. Whatever fails, it goes on.
 */
import type { CaptureTimes } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import type { QmpClient } from "../qmp/client.ts";
import { Deadline, nowMs, realtimeNs } from "../sys/deadline.ts";
import { grantFile, newSparseFile, readRange } from "../sys/disk-files.ts";
import type { PageSet } from "../sys/page-set.ts";
import { guestMapping, MemoryCapture } from "../sys/process-memory.ts";
import { removeTree } from "../sys/store-files.ts";
import { pagesOverTemplate } from "../template/process-image.ts";
import { LIMITS_MS } from "./config.ts";
import type { VmRecord } from "./records.ts";
import type { RunningVm } from "./running-vm.ts";
import { type CaptureStage, StageClock } from "./stages.ts";

/** Name of the file in a slot's directory that QEMU writes its devices into. */
const DEVICES = "devices";
/** Largest device state that is taken. One vCPU's VM has 30 KB. */
const MAX_DEVICE_BYTES = 1 << 20;

/** A process or transfer in the guest, and what the host had of its output. */
export interface GuestObject {
  object: number;
  output: number;
  error: number;
}

/** The state of a VM at one moment, in memory. Disposing it frees the pages. */
export interface Captured extends Disposable, GuestObjects {
  devices: Uint8Array;
  pages: PageSet;
}

/** What there is in a guest at one moment. */
export interface GuestObjects {
  /** Its main process; null: it has none. */
  main: (GuestObject & { pid: number }) | null;
  /** What else is in its guest: processes that exec had started, transfers. */
  others: GuestObject[];
}

/** What is done while the VM stands still, and whether it goes on afterwards. */
export type WithCaptured<T> = (captured: Captured) => Promise<{ value: T; goesOn: boolean }>;

/** A VM of which a state was taken. */
export interface CaptureResult<T> {
  value: T;
  times: CaptureTimes;
  clock: StageClock<CaptureStage>;
}

/**
 * Takes a VM's state, one at a time of each VM.
 * @param use is given the state while the vCPUs stand still. Where it throws, or says so, the VM goes on; otherwise it is up to it.
 * @throws what it throws; `deadline_exceeded`, `qemu_exited`, `agent_request_failed` ... with the stage.
 */
export async function captureVm<T>(
  running: RunningVm,
  record: () => VmRecord | undefined,
  use: WithCaptured<T>,
  deadline: Deadline,
): Promise<CaptureResult<T>> {
  using _awake = running.stayAwake();
  const { qemu, template } = running.clone;
  const qmp = await qemu.qmp(deadline);
  const devicesPath = `${qemu.slot.directory}/${DEVICES}`;
  // Made ready while the guest runs, so that the stop is short.
  const differing = await pagesOverTemplate(template.memoryPath);
  using memory = await MemoryCapture.prepare(qemu.pid, guestMapping(qemu.pid, template.memoryPath), differing);
  return await standingStill(running, qmp, async (stand) => {
    removeTree(devicesPath);
    newSparseFile(devicesPath, 0, []);
    grantFile(devicesPath, qemu.slot.uid);
    try {
      await stand.begin(devicesPath, deadline);
      // Now: nothing that the guest says can come any more.
      const objects = objectsOf(running, record()?.main ?? null);
      const pages = await stand.during("pages", memory.take());
      const captured = {
        devices: readDevices(devicesPath),
        pages,
        ...objects,
        [Symbol.dispose]: () => pages[Symbol.dispose](),
      };
      let kept = false;
      try {
        const { value, goesOn } = await use(captured);
        kept = true;
        stand.clock.end("pages");
        if (goesOn) await stand.end();
        return { value, times: stand.times, clock: stand.clock };
      } finally {
        if (!kept) pages[Symbol.dispose]();
      }
    } finally {
      removeTree(devicesPath);
    }
  });
}

/**
 * Has something done while a VM stands still, without its state being saved: its workload is frozen, its vCPUs stopped; then it goes on.
 * @param work may have it told to go on before it is done, where it finds that afterwards only.
 * @returns what was in its guest at that moment.
 * @throws as {@link captureVm}.
 */
export async function whileStopped(
  running: RunningVm,
  record: () => VmRecord | undefined,
  work: (letGo: () => void) => Promise<void>,
  deadline: Deadline,
): Promise<CaptureResult<GuestObjects>> {
  using _awake = running.stayAwake();
  const qmp = await running.clone.qemu.qmp(deadline);
  return await standingStill(running, qmp, async (stand) => {
    await stand.begin(undefined, deadline);
    const value = objectsOf(running, record()?.main ?? null);
    let ended: Promise<void> | undefined;
    const letGo = () => {
      ended = stand.end();
      ended.catch(() => undefined);
    };
    await stand.during("pages", work(letGo));
    stand.clock.end("pages");
    await (ended ?? stand.end());
    return { value, times: stand.times, clock: stand.clock };
  });
}

/** Does what a VM stands still for; where it fails, the VM goes on. */
function standingStill<T>(running: RunningVm, qmp: QmpClient, work: (stand: Standstill) => Promise<T>): Promise<T> {
  return running.standStill(async () => {
    const stand = new Standstill(running, qmp);
    try {
      return await work(stand);
    } catch (error) {
      await stand.end().catch(() => undefined);
      throw error;
    }
  });
}

/** One VM while it stands still. */
class Standstill {
  readonly clock = new StageClock<CaptureStage>();
  #frozen = false;
  #stoppedAtMs: number | undefined;
  #times: CaptureTimes = { stoppedMs: 0, vcpuStoppedMs: 0, durableMs: null };

  constructor(
    private readonly running: RunningVm,
    private readonly qmp: QmpClient,
  ) {}

  /** How long it stood still. */
  get times(): CaptureTimes {
    return this.#times;
  }

  /** Freezes the workload, stops the vCPUs and has the devices saved. @param devicesPath where; undefined: they are not. */
  async begin(devicesPath: string | undefined, deadline: Deadline): Promise<void> {
    this.#frozen = true;
    await this.during("freeze", this.running.agent.freeze(deadline));
    this.clock.end("freeze");
    this.#stoppedAtMs = nowMs();
    const stopped = this.qmp.execute("stop", undefined, deadline);
    const save = devicesPath === undefined ? undefined : { filename: devicesPath, live: false };
    const saved = save && this.qmp.execute("xen-save-devices-state", save, deadline);
    await this.during("save", Promise.all([stopped, saved]));
    this.clock.end("save");
  }

  /** Waits for a step of a stage, or for the end of its QEMU. */
  async during<T>(stage: CaptureStage, step: Promise<T>): Promise<T> {
    try {
      return await this.running.clone.qemu.untilExit(step, stage);
    } catch (error) {
      throw inStage(stage, error, this.running.id);
    }
  }

  /** Lets it go on. Once; QEMU and agent are told even if they do not answer in time: they will when they wake up. */
  async end(): Promise<void> {
    if (!this.#frozen) return;
    this.#frozen = false;
    const deadline = Deadline.after(LIMITS_MS.request);
    const runs = this.#stoppedAtMs === undefined ? undefined : this.qmp.execute("cont", undefined, deadline);
    const thawed = this.running.agent.goOn(realtimeNs(), deadline);
    const ran = runs?.then(() => nowMs());
    const [runsAtMs] = await this.during("thaw", Promise.all([ran, thawed]));
    this.clock.end("thaw");
    const vcpuStoppedMs = runsAtMs === undefined ? 0 : runsAtMs - (this.#stoppedAtMs ?? runsAtMs);
    this.#times = {
      stoppedMs: this.clock.elapsedMs,
      vcpuStoppedMs: Math.round(vcpuStoppedMs * 1000) / 1000,
      durableMs: null,
    };
  }
}

/** What goes on in a copy of the guest, and from where: the main process where the VM's own log ends. */
function objectsOf(running: RunningVm, recorded: VmRecord["main"]): GuestObjects {
  const { agent, main, logs } = running;
  const process = main?.process;
  const others = agent.lasting().filter(({ object }) => object !== process?.object);
  if (process === undefined || recorded === null) return { main: null, others };
  const { base, pid } = recorded;
  const logged = main?.logFailure === undefined ? logs : undefined;
  const { output, error } = process.arrived;
  return {
    main: {
      object: process.object,
      pid,
      output: logged === undefined ? output : logged.stdout.offset - base.stdout,
      error: logged === undefined ? error : logged.stderr.offset - base.stderr,
    },
    others,
  };
}

function readDevices(path: string): Uint8Array {
  const devices = readRange(path, 0, MAX_DEVICE_BYTES + 1);
  if (devices.length > 0 && devices.length <= MAX_DEVICE_BYTES) return devices;
  throw new MayflyError("not_capturable", `QEMU saved ${devices.length} bytes of device state, which cannot be`);
}

function inStage(stage: CaptureStage, error: unknown, vmId: string): unknown {
  if (!(error instanceof MayflyError) || error.stage !== undefined) return error;
  return new MayflyError(error.code, error.message, { stage, vmId, details: error.details, cause: error });
}
