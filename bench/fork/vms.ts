/** The VMs that the scenario forks, checkpoints and suspends; and what its samples need of them. */
import type { Client } from "../../src/client/client.ts";
import type { CreateVmRequest, Vm } from "../../src/contract/api.ts";
import { MayflyError } from "../../src/contract/errors.ts";
import { SHAPE_MEMORY_MIB } from "../../src/contract/machine.ts";
import { type Deadline, nowMs } from "../../src/sys/deadline.ts";

/** What a guest runs to write memory: pages that nothing else has, in a tmpfs. */
export function dirtyCommand(mebibytes: number): string[] {
  return ["dd", "if=/dev/urandom", "of=/dev/shm/written", "bs=1M", `count=${mebibytes}`];
}

/** The smallest guest in which so much can be written: a tmpfs takes half of the memory that the kernel leaves. */
export function guestFor(dirtyMiB: number): number {
  const fitting = SHAPE_MEMORY_MIB.find((size) => size >= 128 && size >= 3 * dirtyMiB);
  if (fitting === undefined)
    throw new MayflyError("invalid_argument", `No guest takes ${dirtyMiB} MiB of written memory`);
  return fitting;
}

/** Has a VM write memory. */
export async function dirty(client: Client, vm: string, mebibytes: number, signal: AbortSignal): Promise<void> {
  const { exitCode, stderr } = await client.vms.execToEnd(vm, { command: dirtyCommand(mebibytes) }, { signal });
  if (exitCode === 0) return;
  const said = Buffer.from(stderr, "base64").toString().trim();
  throw new MayflyError("internal", `A VM could not write ${mebibytes} MiB of memory: ${said}`, { vmId: vm });
}

/** A VM that only is there: no process of anybody's runs in it. */
export function idleVm(client: Client, memoryMiB: number, signal: AbortSignal): Promise<Vm> {
  const request: CreateVmRequest = { memoryBytes: memoryMiB * 2 ** 20, pool: false };
  return client.vms.create(request, { signal });
}

/** A VM whose process gives back each line that it gets. */
export function echoingVm(client: Client, signal: AbortSignal): Promise<Vm> {
  return client.vms.create({ command: ["cat"], stdin: true, pool: false }, { signal });
}

/** Sends a line to the process of an echoing VM. @returns when its first byte was back, as `nowMs` counts. */
export async function echoed(client: Client, vm: string, deadline: Deadline): Promise<number> {
  await using process = await client.vms.attach(vm, { stdin: true });
  process.exited.catch(() => undefined);
  const first = process.output[Symbol.asyncIterator]().next();
  await process.stdin.write("x\n");
  const { done } = await deadline.race(first, "the answer of an echoing VM");
  if (done === true) throw new MayflyError("internal", "An echoing VM ended instead of answering", { vmId: vm });
  return nowMs();
}

/** Runs `echo hi` in a VM. @returns when its first byte was there, as `nowMs` counts. */
export async function firstEcho(client: Client, vm: string, deadline: Deadline): Promise<number> {
  await using process = await client.vms.exec(vm, { command: ["echo", "hi"] });
  process.exited.catch(() => undefined);
  const { done } = await deadline.race(process.output[Symbol.asyncIterator]().next(), "the output of echo");
  if (done === true) throw new MayflyError("internal", "A command ended without output", { vmId: vm });
  return nowMs();
}
