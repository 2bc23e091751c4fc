/** How costs grow with the size of a guest, and with what it has written: a few samples at each point, Mayfly's and QEMU's in turns. */
import type { Listener } from "../prepare.ts";
import { type Row, Samples, type Subject } from "../samples.ts";
import { type Failures, takeTurns } from "../turns.ts";
import type { Ground } from "./ground.ts";
import type { ForkOptions } from "./options.ts";
import type { Panel, Point } from "./plot.ts";
import { plainParent, qemuTakers } from "./qemu-takers.ts";
import { checkpointTaker, type ForkBench, forkTaker } from "./subjects.ts";
import { dirty, guestFor, idleVm } from "./vms.ts";

/** Samples at each point; one before them is thrown away. */
const POINT_SAMPLES = 5;
/** MiB written by the guests of the second picture, which all have one size. */
const DIRTY_MIB = [0, 4, 16, 64, 256];
const FEW = { warm: 0, blocked: 2 };

/** A line of the pictures: whose, and which of its metrics. */
const LINES: readonly { subject: Subject; metric: string; label: string }[] = [
  { subject: "fork", metric: "parent-stopped", label: "fork: parent stopped" },
  { subject: "fork", metric: "child-ready", label: "fork: child ready" },
  { subject: "checkpoint", metric: "durable", label: "checkpoint: on the disk" },
  { subject: "savevm", metric: "parent-stopped", label: "savevm: VM stopped" },
  { subject: "loadvm", metric: "child-ready", label: "loadvm: ready" },
  { subject: "migrate-file", metric: "durable", label: "migrate to file: on the disk" },
  { subject: "restore-file", metric: "child-ready", label: "restore from file: ready" },
];

/** Where a point lies: a guest, and what it has written. */
interface Place {
  memoryMiB: number;
  dirtyMiB: number;
}

/** Medians at one place, by the labels of {@link LINES}. */
type Medians = ReadonlyMap<string, number>;

/** Measures both pictures. @returns what to draw. */
export async function measureCurves(
  ground: Ground,
  options: ForkOptions,
  listener: Listener,
  failures: Failures,
): Promise<Panel[]> {
  const bySize: [number, Medians][] = [];
  for (const memoryMiB of options.sizesMiB) {
    bySize.push([memoryMiB, await measureAt(ground, { memoryMiB, dirtyMiB: 0 }, options, listener, failures)]);
  }
  const byDirt: [number, Medians][] = [];
  const memoryMiB = guestFor(Math.max(...DIRTY_MIB));
  for (const dirtyMiB of DIRTY_MIB) {
    byDirt.push([dirtyMiB, await measureAt(ground, { memoryMiB, dirtyMiB }, options, listener, failures)]);
  }
  return [
    { title: "An idle guest, by its size", unit: "MiB of guest memory", lines: linesOf(bySize) },
    { title: `A guest of ${memoryMiB} MiB, by what it has written`, unit: "MiB written", lines: linesOf(byDirt) },
  ];
}

function linesOf(measured: readonly (readonly [number, Medians])[]): Panel["lines"] {
  return LINES.map(({ label }) => ({
    label,
    points: measured.flatMap(([x, medians]): Point[] => {
      const y = medians.get(label);
      return y === undefined ? [] : [{ x, y }];
    }),
  })).filter(({ points }) => points.length > 0);
}

async function measureAt(
  ground: Ground,
  place: Place,
  options: ForkOptions,
  { progress, signal }: Listener,
  failures: Failures,
): Promise<Medians> {
  const { memoryMiB, dirtyMiB } = place;
  const what = `a guest of ${memoryMiB} MiB, ${dirtyMiB} written`;
  progress(what);
  const { client } = ground.daemon;
  const template = await client.templates.build({ memoryBytes: memoryMiB * 2 ** 20 }, { signal });
  const isPooled = ground.pool(memoryMiB) !== undefined || (template.pool?.blocked ?? 0) > 0;
  if (!isPooled) await client.templates.pool(template.id, FEW, { signal });
  const vm = await idleVm(client, memoryMiB, signal);
  await using resources = new AsyncDisposableStack();
  resources.defer(() => client.vms.remove(vm.id, { force: true }));
  if (dirtyMiB > 0) await dirty(client, vm.id, dirtyMiB, signal);
  const bench: ForkBench = {
    ...{ daemon: ground.daemon, signal, depth: 1, children: 1, dirtyMiB },
    parents: { idle: vm.id, dirty: vm.id, deepest: vm.id, echoing: vm.id },
  };
  const takers = [
    forkTaker(bench, `fork of ${what}`, vm.id, ""),
    checkpointTaker(bench, `checkpoint of ${what}`, vm.id, ""),
  ];
  if (options.qemu) {
    const parent = await plainParent(ground.host, place, ground.statesDirectory, signal);
    resources.use(parent.vm);
    takers.push(...qemuTakers(parent, ""));
  }
  const turns = { failures, settle: () => ground.settle() };
  await takeTurns(takers, 0, new Samples(), turns);
  const samples = new Samples();
  for (let round = 0; round < POINT_SAMPLES; round += 1) {
    progress(`${what}: ${round + 1} of ${POINT_SAMPLES}`);
    await takeTurns(takers, round, samples, turns);
  }
  if (!isPooled) await client.templates.pool(template.id, { warm: 0, blocked: 0 }, { signal });
  return mediansOf(samples.rows());
}

function mediansOf(rows: readonly Row[]): Medians {
  return new Map(
    LINES.flatMap(({ subject, metric, label }) => {
      const row = rows.find((candidate) => candidate.subject === subject && candidate.metric === metric);
      return row === undefined ? [] : [[label, row.p50] as const];
    }),
  );
}
