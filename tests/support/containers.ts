/** For tests of containers in the guest: a clone whose agent is asked directly, without an engine. */
import type { AgentProcess } from "../../src/agent/process.ts";
import type { ExecSpec } from "../../src/agent/requests.ts";
import type { DiskFiles } from "../../src/machine/devices/disk.ts";
import type { DiskClone, DiskHost } from "./disk-clones.ts";
import { Output, soon } from "./engine.ts";

/** Docker's default capabilities. */
export const DOCKER_CAPABILITIES = 0xa80425fbn;

/** How a command ended: its code, or the name of the signal that ended it, and what it printed. */
export interface Ended {
  end: number | `signal ${number}`;
  stdout: string;
  stderr: string;
}

/** A process that runs in the guest. */
export class GuestProcess {
  readonly output = new Output();
  readonly process: AgentProcess;

  constructor(clone: DiskClone, spec: ExecSpec) {
    const keep = (channel: 2 | 3, chunk: Uint8Array) => this.output.output(channel === 2 ? 1 : 2, chunk);
    this.process = clone.clone.agent.exec(spec, keep, soon());
  }

  /** Resolves once standard output contains `text`; rejects when the process cannot be started. */
  async has(text: string): Promise<this> {
    await this.process.pid;
    await this.output.has(text);
    return this;
  }

  /** Waits for its end and has the agent forget it. */
  async ended(): Promise<Ended> {
    const { code, signal } = await soon().race(this.process.exited, "the end of a process");
    await this.process.release(soon());
    const { stdout, stderr } = this.output;
    return { end: code ?? `signal ${signal ?? 0}`, stdout, stderr };
  }
}

/** A clone in which containers are built. */
export class ContainerGuest implements AsyncDisposable {
  private constructor(readonly vm: DiskClone) {}

  static async start(host: DiskHost, disks: DiskFiles): Promise<ContainerGuest> {
    return new ContainerGuest(await host.start(disks));
  }

  get agent() {
    return this.vm.clone.agent;
  }

  /** Starts a program with the usual PATH. */
  start(argv: string[], spec: Partial<ExecSpec> = {}): GuestProcess {
    return new GuestProcess(this.vm, { env: ["PATH=/bin:/sbin"], ...spec, argv });
  }

  /** Runs a shell script to its end. */
  run(script: string, spec: Partial<ExecSpec> = {}): Promise<Ended> {
    return this.start(["/bin/sh", "-c", script], spec).ended();
  }

  /** Runs a shell script to its end. @returns what it printed, trimmed. @throws when it fails. */
  async shell(script: string, spec: Partial<ExecSpec> = {}): Promise<string> {
    const { end, stdout, stderr } = await this.run(script, spec);
    if (end !== 0) throw new Error(`the script ended with ${end}: ${stdout}${stderr}`);
    return stdout.trim();
  }

  /** The same, outside of the container. */
  outside(script: string): Promise<string> {
    return this.shell(script, { outside: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.vm[Symbol.asyncDispose]();
  }
}
