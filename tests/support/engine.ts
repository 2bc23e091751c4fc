/** For tests: an engine over real QEMU with directories of its own, commands run to their end, and what it may leave behind. */
import { mkdirSync } from "node:fs";
import type { CreateVmRequest, ExecRequest, Vm } from "../../src/contract/api.ts";
import type { Shape } from "../../src/contract/machine.ts";
import type { PoolSizes } from "../../src/engine/config.ts";
import type { Engine, ExitStatus, OutputSink, ProcessSession } from "../../src/engine/interface.ts";
import { type OpenOptions, openEngine } from "../../src/engine/open.ts";
import { Deadline } from "../../src/sys/deadline.ts";
import { hostArtifacts, newDirectory, noteGroup, plantTemplate, processesMentioning, SMALL } from "./engine-host.ts";
import { type Leftovers, leftoversOf, NOTHING_LEFT, ownDescriptors } from "./engine-leftovers.ts";

/** No operation in these tests takes longer on a machine that is busy with other things. */
export const LIMIT_MS = 40_000;

/** A deadline that no test should reach. */
export function soon(limitMs = LIMIT_MS): Deadline {
  return Deadline.after(limitMs);
}

/** Output of a process, and how it ended. */
export interface Finished extends ExitStatus {
  vm: Vm;
  stdout: string;
  stderr: string;
}

/** Keeps what a process prints. */
export class Output implements OutputSink {
  readonly #parts: Record<1 | 2, Buffer[]> = { 1: [], 2: [] };
  readonly #waiters = new Set<() => void>();

  output(channel: 1 | 2, chunk: Uint8Array): undefined {
    this.#parts[channel].push(Buffer.from(chunk));
    for (const wake of this.#waiters) wake();
  }

  get stdout(): string {
    return Buffer.concat(this.#parts[1]).toString();
  }

  get stderr(): string {
    return Buffer.concat(this.#parts[2]).toString();
  }

  /** Resolves once standard output contains `text`. */
  async has(text: string, deadline: Deadline = soon()): Promise<void> {
    while (!this.stdout.includes(text)) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#waiters.add(resolve);
      await deadline.race(promise, `${JSON.stringify(text)} in the output ${JSON.stringify(this.stdout)}`);
      this.#waiters.delete(resolve);
    }
  }
}

/** What a {@link TestEngine} is opened with. */
export interface TestEngineOptions extends Partial<OpenOptions> {
  /** Templates to start with; the default shape's unless told. */
  templates?: readonly Shape[];
  /** Whether to wait until pools are full, which they never are of something broken; true unless told. */
  waitForPools?: boolean;
  /** Directory that holds both of its directories; a new one unless told. */
  root?: string;
}

const NO_POOL: PoolSizes = { blocked: 0, warm: 0 };

/** An engine of one test or one file of tests. */
export class TestEngine implements AsyncDisposable {
  #descriptors: ReadonlyMap<number, string> | undefined;
  #closed = false;

  private constructor(
    readonly engine: Engine,
    readonly stateDir: string,
    readonly runDir: string,
    readonly group: string,
  ) {}

  /** Opens one under TCG without a pool, unless told otherwise, with the default shape's template in place. */
  static async open(options: TestEngineOptions = {}): Promise<TestEngine> {
    const { templates = [SMALL], root = newDirectory("vms"), waitForPools = true, ...given } = options;
    const stateDir = given.stateDir ?? `${root}/state`;
    const runDir = given.runDir ?? `${root}/run`;
    mkdirSync(stateDir, { recursive: true, mode: 0o711 });
    for (const shape of templates) await plantTemplate(stateDir, shape);
    const group = noteGroup(stateDir);
    const defaults = { artifacts: hostArtifacts(), pool: NO_POOL, profiles: [], accelerator: "tcg" } as const;
    const engine = await openEngine({ ...defaults, ...given, stateDir, runDir });
    const opened = new TestEngine(engine, stateDir, runDir, group);
    if (waitForPools) await opened.poolsFull();
    return opened;
  }

  /** Opens one that chooses the accelerator by its probe, without a template. */
  static async openProbing({ stateDir, runDir }: { stateDir: string; runDir: string }): Promise<TestEngine> {
    const engine = await openEngine({ stateDir, runDir, artifacts: hostArtifacts(), pool: NO_POOL });
    return new TestEngine(engine, stateDir, runDir, noteGroup(stateDir));
  }

  /** Closes it and opens another on the same directories; VMs go on meanwhile. */
  async reopen(options: TestEngineOptions = {}): Promise<TestEngine> {
    await this.close();
    return TestEngine.open({ ...options, templates: [], stateDir: this.stateDir, runDir: this.runDir });
  }

  /** Starts a VM, runs a command in it as its main process to its end, and removes it. */
  async run(command: string[], request: Partial<CreateVmRequest> = {}, limitMs = LIMIT_MS): Promise<Finished> {
    const output = new Output();
    const whole = { autoRemove: true, ...request, command };
    const { vm, process } = await this.engine.createVm(whole, { deadline: soon(limitMs), sink: output });
    const status = await finish(process);
    // The VM ends with its main process, but a moment later.
    await this.engine.waitVm(vm.id, AbortSignal.timeout(limitMs)).catch(() => undefined);
    return { vm, ...status, stdout: output.stdout, stderr: output.stderr };
  }

  /** A shell script in a VM of its own. @returns what it printed, trimmed. @throws when it fails. */
  async script(text: string, request: Partial<CreateVmRequest> = {}): Promise<string> {
    return ok(await this.run(["/bin/sh", "-c", text], request));
  }

  /** Starts a VM without a main process. */
  async start(request: CreateVmRequest = {}, limitMs = LIMIT_MS): Promise<Vm> {
    return (await this.engine.createVm(request, { deadline: soon(limitMs) })).vm;
  }

  /** Runs a command in a running VM to its end. */
  async exec(ref: string, command: string[], request: Partial<ExecRequest> = {}): Promise<Finished> {
    const output = new Output();
    const process = await this.engine.exec(ref, { ...request, command }, output, soon());
    const status = await finish(process);
    return { vm: this.engine.getVm(ref), ...status, stdout: output.stdout, stderr: output.stderr };
  }

  /** A shell script in a running VM. @returns what it printed, trimmed. @throws when it fails. */
  async shell(ref: string, text: string, request: Partial<ExecRequest> = {}): Promise<string> {
    return ok(await this.exec(ref, ["/bin/sh", "-c", text], request));
  }

  /** Ends and removes a VM. */
  async remove(ref: string): Promise<void> {
    await this.engine.removeVm(ref, { force: true, deadline: soon() });
  }

  /** Ends and removes all VMs. */
  async removeAll(): Promise<void> {
    for (const { id } of this.engine.listVms()) await this.remove(id);
  }

  /** Waits until such VMs go on from a process image, which is made in the background. */
  async untilImage(request: Partial<CreateVmRequest>): Promise<void> {
    const deadline = soon();
    while ((await this.run(["true"], request)).vm.clone.path !== "image")
      await deadline.race(Bun.sleep(250), "a process image");
  }

  /** Waits until pools have what they should have. */
  async poolsFull(deadline: Deadline = soon()): Promise<void> {
    const full = () =>
      this.engine
        .info()
        .pools.every(
          ({ target, ...pool }) =>
            [pool.blocked, pool.standing, pool.warm, pool.parent].join() === Object.values(target).join(),
        );
    while (!full()) {
      const { promise, resolve } = Promise.withResolvers<void>();
      const stop = this.engine.subscribe((event) => event.type === "pool.refilled" && resolve());
      await deadline.race(promise, "a full pool").finally(stop);
    }
  }

  /** Waits until there are so many QEMUs (one that is being executed has no command line for a moment). @returns their pids. */
  async processes(count: number): Promise<number[]> {
    const deadline = soon(5_000);
    let pids = [...processesMentioning(`${this.stateDir}/`).keys()];
    while (pids.length !== count) {
      if (deadline.remainingMs === 0) throw new Error(`there are ${pids.length} QEMUs instead of ${count}`);
      await Bun.sleep(10);
      pids = [...processesMentioning(`${this.stateDir}/`).keys()];
    }
    return pids;
  }

  /** Remembers how many descriptors this process has, for {@link leftBehind}. */
  markDescriptors(): void {
    // SQLite keeps what it opens to be read here until the engine closes its database.
    leftoversOf(this, { owned: 0, records: 0, descriptors: undefined });
    this.#descriptors = ownDescriptors();
  }

  /** What is there besides the VMs that run and what pools hold; equal to {@link NOTHING_LEFT} when all is well. */
  async leftBehind(): Promise<Leftovers> {
    const read = () => {
      const { pools, vms } = this.engine.info();
      const owned = pools.reduce(
        (sum, { blocked, standing, warm, parent }) => sum + blocked + standing + warm + Number(parent),
        vms,
      );
      return leftoversOf(this, { owned, records: this.engine.listVms().length, descriptors: this.#descriptors });
    };
    // A pool may be making a parent, which is nobody's until it is one.
    const deadline = soon(10_000);
    let left = read();
    while (JSON.stringify(left) !== JSON.stringify(NOTHING_LEFT) && deadline.remainingMs > 0) {
      await Bun.sleep(10);
      left = read();
    }
    return left;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.engine.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    for (const vm of this.engine.listVms()) await this.remove(vm.id).catch(() => undefined);
    await this.close();
  }
}

async function finish(process: ProcessSession | undefined): Promise<ExitStatus> {
  if (process === undefined) throw new Error("the VM was started without a process");
  return soon().race(process.exited, "the end of the command");
}

function ok({ exitCode, stdout, stderr }: Finished): string {
  if (exitCode !== 0) throw new Error(`the script ended with ${exitCode}: ${stdout}${stderr}`);
  return stdout.trim();
}

/** All of a file's contents as text. */
export async function textOf(content: AsyncIterable<Uint8Array>): Promise<string> {
  const parts: Uint8Array[] = [];
  for await (const part of content) parts.push(part);
  return Buffer.concat(parts).toString();
}
