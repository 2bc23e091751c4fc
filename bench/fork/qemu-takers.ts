/** The subjects of the scenario `fork` that are QEMU's: a state is kept, and a new QEMU goes on from it. */
import type { Shape } from "../../src/contract/machine.ts";
import { baseSpec } from "../../src/engine/exec-spec.ts";
import type { Host } from "../../src/engine/host.ts";
import { runToEnd } from "../../src/engine/warm-up.ts";
import { shapeFor } from "../../src/machine/shape.ts";
import { Deadline } from "../../src/sys/deadline.ts";
import type { Samples, Subject } from "../samples.ts";
import type { Taker } from "../turns.ts";
import { bootPlainVm, type PlainVm } from "./plain-vm.ts";
import { forget, loadvm, migrateToFile, restoreFromFile, type SaveTimes, savevm } from "./qemu-ways.ts";
import { dirtyCommand } from "./vms.ts";

const BOOT_LIMIT_MS = 90_000;
const LIMIT_MS = 120_000;

/** A VM without Mayfly's template, to keep states of. */
export interface PlainParent {
  host: Host;
  shape: Shape;
  vm: PlainVm;
  /** Directory for its states: files in it belong to QEMU's users. */
  directory: string;
  signal: AbortSignal;
}

/** The machine of a VM without a template. As that of one with it: a guest kernel does not boot with every size (SHAPE_MEMORY_MIB). */
export function plainShape(memoryMiB: number): Shape {
  return shapeFor({ memoryBytes: memoryMiB * 2 ** 20, cpus: 1 }, Number.POSITIVE_INFINITY);
}

/** Boots one, and has it write so much memory. */
export async function plainParent(
  host: Host,
  { memoryMiB, dirtyMiB }: { memoryMiB: number; dirtyMiB: number },
  directory: string,
  signal: AbortSignal,
): Promise<PlainParent> {
  const shape = plainShape(memoryMiB);
  const deadline = Deadline.after(BOOT_LIMIT_MS, signal);
  const vm = await bootPlainVm(host, shape, deadline);
  if (dirtyMiB > 0) await runToEnd(vm.agent, baseSpec({}, dirtyCommand(dirtyMiB), true), deadline);
  return { host, shape, vm, directory, signal };
}

/** Both ways. @param suffix of the metrics' names. */
export function qemuTakers(parent: PlainParent, suffix: string): Taker[] {
  const { host, shape, vm, signal } = parent;
  const name = (way: string) => `${way}${suffix}`;
  const path = (way: string) => `${parent.directory}/${way}${suffix}`;
  const deadline = () => Deadline.after(LIMIT_MS, signal);
  return [
    {
      name: name("savevm"),
      async take(samples) {
        const file = path("savevm");
        try {
          addSave(samples, "savevm", suffix, await savevm(vm, file, deadline()));
          await addStart(samples, "loadvm", suffix, () => loadvm(host, shape, file, deadline()));
        } finally {
          forget(file);
        }
      },
    },
    {
      name: name("migrate"),
      async take(samples) {
        const file = path("migrate");
        try {
          addSave(samples, "migrate-file", suffix, await migrateToFile(vm, file, deadline()));
          await addStart(samples, "restore-file", suffix, () => restoreFromFile(host, shape, file, deadline()));
        } finally {
          forget(file);
        }
      },
    },
  ];
}

function addSave(samples: Samples, subject: Subject, suffix: string, times: SaveTimes): void {
  samples.add(subject, `parent-stopped${suffix}`, "ms", times.stoppedMs);
  samples.add(subject, `durable${suffix}`, "ms", times.durableMs);
  samples.add(subject, `delta-bytes${suffix}`, "bytes", times.bytes);
}

async function addStart(
  samples: Samples,
  subject: Subject,
  suffix: string,
  start: () => Promise<[PlainVm, number]>,
): Promise<void> {
  const [vm, readyMs] = await start();
  await vm[Symbol.asyncDispose]();
  samples.add(subject, `child-ready${suffix}`, "ms", readyMs);
}
