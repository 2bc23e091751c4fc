/** One VM while it runs: its clone, its main process, what else runs in it, and how it ends. */
import type { AgentClient } from "../agent/client.ts";
import type { ExecSpec } from "../agent/requests.ts";
import type { Vm } from "../contract/api.ts";
import { MayflyError, problemDocument } from "../contract/errors.ts";
import { AppendLog } from "../sys/append-log.ts";
import { Deadline } from "../sys/deadline.ts";
import type { Clone } from "./clone.ts";
import { LIMITS_MS } from "./config.ts";
import type { Holdings } from "./holdings.ts";
import type { ExitStatus, OutputSink } from "./interface.ts";
import { type OutputLogs, Workload } from "./workload.ts";

/** How a VM ended: by its main process, on request, or for a reason. */
export type VmEnd =
  | { by: "exit"; status: ExitStatus; logFailure?: MayflyError }
  | { by: "request" }
  /** It waits in a snapshot, and has ended for those only who looked at its QEMU. */
  | { by: "suspension" }
  | { by: "failure"; error: MayflyError };

/** The names of a VM's log files. */
export const LOG_NAMES = { 1: "stdout.log", 2: "stderr.log" } as const;

/** Opens the logs of a VM in its directory. */
export function openLogs(directory: string, limitBytes: number): OutputLogs {
  return {
    stdout: new AppendLog(directory, LOG_NAMES[1], limitBytes),
    stderr: new AppendLog(directory, LOG_NAMES[2], limitBytes),
  };
}

/** Closes the logs of a VM; what is in them stays. */
export function closeLogs(logs: OutputLogs | undefined): void {
  logs?.stdout[Symbol.dispose]();
  logs?.stderr[Symbol.dispose]();
}

/** Decides what follows the end of a main process. @returns whether the VM goes on without one. */
export type AfterMain = (main: Workload, status: ExitStatus) => boolean;

/** A running VM. */
export class RunningVm {
  /** What has been read of the guest's console. */
  console = "";
  #main: Workload | undefined;
  #afterMain: AfterMain = () => false;
  readonly #ended = Promise.withResolvers<VmEnd>();
  #ending = false;
  #standing: Promise<void> | undefined;
  #awake = 0;

  constructor(
    readonly id: string,
    readonly clone: Clone,
    main: Workload | undefined,
    readonly logs: OutputLogs | undefined,
    private readonly holdings: Holdings,
  ) {
    this.#main = main;
  }

  /** The main process; absent in a VM that only execs, and between two main processes. */
  get main(): Workload | undefined {
    return this.#main;
  }

  get agent(): AgentClient {
    return this.clone.agent;
  }

  /** Whether it has begun to end. */
  get isEnding(): boolean {
    return this.#ending;
  }

  /** Resolves once, when the VM has ended and its QEMU is gone. */
  get ended(): Promise<VmEnd> {
    return this.#ended.promise;
  }

  /**
   * Does what the workload stands still for: one at a time, and nothing is started in it meanwhile.
   * @throws `vm_not_running` when it has ended by then.
   */
  async standStill<T>(work: () => Promise<T>): Promise<T> {
    // Not a moment may pass between this and taking the place.
    while (this.#standing !== undefined) await this.#standing;
    if (this.#ending) throw new MayflyError("vm_not_running", `VM ${this.id} has ended`, { vmId: this.id });
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#standing = promise;
    try {
      return await work();
    } finally {
      this.#standing = undefined;
      resolve();
    }
  }

  /** Resolves when it goes on, if it stands still. Look again then: others wait, too. Until it is undefined nothing can be started in it. */
  get standing(): Promise<void> | undefined {
    return this.#standing;
  }

  /** It is not paused for being idle until the result is disposed. */
  stayAwake(): Disposable {
    this.#awake += 1;
    return {
      [Symbol.dispose]: () => {
        this.#awake -= 1;
      },
    };
  }

  /** Whether nothing is under way in it: no client is attached, nothing was started by exec, nothing is done with it, the guest owes no word. */
  get isQuiet(): boolean {
    if (this.#ending || this.#standing !== undefined || this.#awake > 0) return false;
    return this.#main?.isAttached !== true && this.agent.isQuiet(this.#main?.process?.object);
  }

  /** Begins to watch it: nothing that has happened since it was made is missed. */
  watch(afterMain: AfterMain): void {
    this.#afterMain = afterMain;
    const { qemu, agentClosed } = this.clone;
    if (this.#main !== undefined) this.#follow(this.#main);
    qemu.exited.then((exit) => this.end({ by: "failure", error: qemu.exitError(exit, "running") }));
    agentClosed.then((cause) => this.#fail(cause));
  }

  /**
   * Starts a main process where there is none (any more). The request is sent when this turn of the event loop ends.
   * @returns it; its `process.pid` resolves when it runs. That it cannot be started ends the VM.
   */
  startMain(spec: ExecSpec, killAtMs: number | null, deadline: Deadline): Workload {
    const main = new Workload(this.logs, undefined);
    main.bind(this.agent.exec(spec, main.consume, deadline), killAtMs ?? undefined);
    this.#main = main;
    this.#follow(main);
    return main;
  }

  /** Starts another process in it. Resolves when it runs. @throws `command_not_found`, `command_not_executable` ... */
  async exec(
    spec: ExecSpec,
    timeoutMs: number | undefined,
    sink: OutputSink | undefined,
    deadline: Deadline,
  ): Promise<Workload> {
    while (this.#standing !== undefined) await this.#standing;
    const workload = new Workload(undefined, sink);
    const process = this.agent.exec(spec, workload.consume, deadline);
    workload.bind(process, timeoutMs === undefined ? undefined : Date.now() + timeoutMs);
    await this.clone.qemu.untilExit(process.pid, "starting a command");
    workload.exited.then(
      () => process.release(deadline).catch(() => undefined),
      () => undefined,
    );
    return workload;
  }

  /** Ends the VM: its disks are unmounted if it still answers, QEMU is killed. Resolves when it is gone. The first end counts. */
  async end(how: VmEnd): Promise<void> {
    if (!this.#ending) {
      this.#ending = true;
      if (how.by !== "failure" && this.holdings.needsUnmount) await this.#unmount();
      this.agent.close();
      await this.clone.qemu.kill();
      closeLogs(this.logs);
      await this.holdings.release();
      this.#ended.resolve(how);
    }
    await this.ended;
  }

  /** A guest that does not unmount in time has a journal, which is replayed at the next mount. */
  async #unmount(): Promise<void> {
    const deadline = Deadline.after(LIMITS_MS.unmount);
    await this.clone.qemu.untilExit(this.agent.teardown({ trim: true }, deadline), "unmounting").catch(() => undefined);
  }

  /**
   * Ends its QEMU alone: the VM waits in a snapshot. @param cause what its clients are told.
   * @returns what it goes on holding, at once: `ended` resolves when its QEMU is gone.
   */
  park(wake: () => void, cause: MayflyError): Holdings {
    this.#ending = true;
    this.holdings.park(wake);
    this.agent.close(cause);
    void this.clone.qemu.kill().then(() => {
      closeLogs(this.logs);
      this.#ended.resolve({ by: "suspension" });
    });
    return this.holdings;
  }

  /** Leaves it running for the next daemon. `ended` does not resolve any more. */
  letGo(): void {
    this.#ending = true;
    this.agent.close();
    this.clone.qemu.letGo();
    this.holdings.letGo();
    closeLogs(this.logs);
  }

  #follow(main: Workload): void {
    main.exited.then(
      (status) => this.#mainEnded(main, status),
      (cause: unknown) => this.#fail(cause),
    );
  }

  #mainEnded(main: Workload, status: ExitStatus): Promise<void> | undefined {
    if (this.#ending) return;
    if (!this.#afterMain(main, status)) return this.end(this.#exit(main, status));
    this.#main = undefined;
    // Its end is recorded: the agent may forget it.
    main.process?.release(Deadline.after(LIMITS_MS.request)).catch(() => undefined);
  }

  /** The main process' end. What could not be logged is told with it: the command did not suffer from it. */
  #exit(main: Workload, status: ExitStatus): VmEnd {
    const failure = main.logFailure;
    return { by: "exit", status, ...(failure === undefined ? {} : { logFailure: asMayflyError(failure) }) };
  }

  /** Ends the VM for a cause. QEMU's end shows first as the end of the agent's channel: its exit says more. */
  async #fail(cause: unknown): Promise<void> {
    const error = await this.clone.qemu.untilExit(Promise.reject(cause), "running").catch((reason: unknown) => reason);
    await this.end({ by: "failure", error: asMayflyError(error) });
  }
}

/** Any failure as a typed one. */
export function asMayflyError(error: unknown): MayflyError {
  if (error instanceof MayflyError) return error;
  return new MayflyError("internal", `The VM failed: ${error instanceof Error ? error.message : error}`, {
    cause: error,
  });
}

/** Applies the end of a VM to what is shown of it. */
export function withEnd(vm: Vm, end: VmEnd): Vm {
  const { pausedAt: _, ...ran } = vm;
  const finished = { ...ran, pid: null, finishedAt: new Date().toISOString() };
  if (end.by === "request" || end.by === "suspension")
    return { ...finished, state: "exited", exitCode: ran.exitCode ?? 137, exitSignal: 9 };
  if (end.by === "exit") {
    const { exitCode, signal } = end.status;
    const error = end.logFailure === undefined ? null : problemDocument(end.logFailure);
    return { ...finished, state: "exited", exitCode, exitSignal: signal, error };
  }
  return { ...finished, state: "failed", exitCode: 255, exitSignal: 0, error: problemDocument(end.error) };
}
