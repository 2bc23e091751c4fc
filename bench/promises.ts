/**
 * What Mayfly promises of its speed and memory, each with the figure that decides it. docs/PERFORMANCE.md states the same promises.
 * They hold for Debian's stock QEMU 10.0 and cloud kernel under software emulation on a quiet machine with two cores.
 */
import type { App } from "./app/recipes.ts";
import type { TrafficMetric } from "./ports/subjects.ts";
import type { Row, Subject, Unit } from "./samples.ts";

/** A number of a report. */
export interface Figure {
  subject: Subject;
  metric: string;
  statistic: "p50" | "p95" | "p99" | "max";
}

/** The bound: a number, a multiple of another figure of the same run, or so much more than it. */
export type Bound =
  | { atMost: number }
  | { below: number }
  | { below: number; timesOf: Figure }
  | { atMost: number; moreThan: Figure }
  | { atLeast: number; timesOf: Figure }
  | { atLeast: number };

/** One promise. */
export interface PerformancePromise {
  text: string;
  figure: Figure;
  bound: Bound;
  /** Fewer samples decide nothing. */
  leastSamples: number;
}

/** Virtual machines of the daemon whose memory is promised. */
export const DAEMON_VMS = 50;
/** Requests at a fixed rate on which the promises of warm clones rest. */
export const WARM_REQUESTS = 500;
/** Clones asked for at once. */
const BURST_CLONES = 100;

const MB = 1e6;
const figure = (subject: Subject, metric: string, statistic: Figure["statistic"]): Figure => ({
  subject,
  metric,
  statistic,
});

const idleMemory = (subject: Subject): PerformancePromise[] => [
  {
    text: `An idle VM (${subject}) has at most 15 MB to itself`,
    figure: figure(subject, "unique-memory", "max"),
    bound: { atMost: 15 * MB },
    leastSamples: 5,
  },
  {
    text: `The guest's part of that (${subject}) is at most 1 MB`,
    figure: figure(subject, "unique-memory-guest", "max"),
    bound: { atMost: MB },
    leastSamples: 5,
  },
];

/** All promises. */
export const PROMISES: readonly PerformancePromise[] = [
  {
    text: "A warm clone is ready within 5 ms (median)",
    figure: figure("clone-warm", "ready", "p50"),
    bound: { atMost: 5 },
    leastSamples: WARM_REQUESTS,
  },
  {
    text: "A warm clone is ready within 15 ms (99th percentile)",
    figure: figure("clone-warm", "ready", "p99"),
    bound: { atMost: 15 },
    leastSamples: WARM_REQUESTS,
  },
  {
    text: "A clone copied from its parent is ready within 30 ms (median)",
    figure: figure("clone-copy", "ready", "p50"),
    bound: { atMost: 30 },
    leastSamples: 20,
  },
  {
    text: "A clone in a QEMU that was started before is ready within 15 ms (median)",
    figure: figure("clone-pool", "ready", "p50"),
    bound: { atMost: 15 },
    leastSamples: 20,
  },
  {
    text: "A clone with nothing prepared is ready within 20 ms (median)",
    figure: figure("clone", "ready", "p50"),
    bound: { atMost: 20 },
    leastSamples: 20,
  },
  {
    text: "A clone with nothing prepared is ready within 35 ms (95th percentile)",
    figure: figure("clone", "ready", "p95"),
    bound: { below: 35 },
    leastSamples: 20,
  },
  {
    text: "Its first output comes sooner than that of runc (medians)",
    figure: figure("clone", "first-output", "p50"),
    bound: { below: 1, timesOf: figure("runc", "first-output", "p50") },
    leastSamples: 20,
  },
  {
    text: "The first output of a warm clone comes in less than 35 ms (95th percentile)",
    figure: figure("clone-warm", "first-output", "p95"),
    bound: { below: 35 },
    leastSamples: WARM_REQUESTS,
  },
  {
    text: "`mayfly run` as a whole takes less than half of `podman run` (medians)",
    figure: figure("clone-warm", "cli", "p50"),
    bound: { below: 0.5, timesOf: figure("podman", "cli", "p50") },
    leastSamples: 20,
  },
  {
    text: `Of ${BURST_CLONES} clones asked for at once none fails`,
    figure: figure("clone", "burst-failed", "max"),
    bound: { atMost: 0 },
    leastSamples: BURST_CLONES,
  },
  {
    text: "The slowest of them is ready within 1.3 times what as many take one after another",
    figure: figure("clone", "burst-ratio", "max"),
    bound: { atMost: 1.3 },
    leastSamples: BURST_CLONES,
  },
  ...idleMemory("clone"),
  ...idleMemory("clone-copy"),
  ...idleMemory("clone-warm"),
  {
    text: `The daemon with ${DAEMON_VMS} VMs takes at most 60 MB`,
    figure: figure("daemon", `rss-${DAEMON_VMS}-vms`, "max"),
    bound: { atMost: 60 * MB },
    leastSamples: 1,
  },
];

/** How many times faster than podman's container the warmed template's first answer is, at least. */
const TIMES_PODMAN: Readonly<Record<App, number>> = { node: 5, python: 5, java: 10 };
const APP_SAMPLES = 20;

/** The promises of the scenario `app`, for one of its services. */
export function appPromises(app: App): PerformancePromise[] {
  const times = TIMES_PODMAN[app];
  const podman = figure("podman", "first-http", "p50");
  const promise = (text: string, subject: Subject, bound: Bound): PerformancePromise => ({
    ...{ text, bound, leastSamples: APP_SAMPLES },
    figure: figure(subject, "first-http", "p50"),
  });
  return [
    promise("A warmed service answers within 35 ms, from the warm pool", "warm", { below: 35 }),
    promise(`That is ${times} times faster than podman`, "warm", {
      below: 1 / times,
      timesOf: podman,
    }),
    promise("A warmed service answers within 80 ms as a copy of its parent, with no clone prepared", "warm-copy", {
      below: 80,
    }),
    promise("A warmed service answers within 80 ms, with nothing prepared", "warm-cold", { below: 80 }),
    {
      text: "`echo hi` on an image costs at most 15 ms more to its first output than in the base guest",
      figure: figure("image-echo", "first-output", "p50"),
      bound: { atMost: 15, moreThan: figure("base-echo", "first-output", "p50") },
      leastSamples: APP_SAMPLES,
    },
  ];
}

const PORTS_SAMPLES = 10;

/** The promises of the scenario `ports`, each against the same traffic over QEMU's user-mode network. */
export function portsPromises(): PerformancePromise[] {
  const promise = (text: string, metric: TrafficMetric, atLeast: number): PerformancePromise => ({
    text,
    figure: figure("forwarded", metric, "p50"),
    bound: { atLeast, timesOf: figure("slirp", metric, "p50") },
    leastSamples: PORTS_SAMPLES,
  });
  return [
    promise("Requests a second on one connection that is kept", "http-kept-1", 1),
    promise("Requests a second on 32 that are kept", "http-kept-32", 1),
    promise("Requests a second with a connection for each", "http-new-1", 1),
    promise("Requests a second with a connection for each, 32 at once", "http-new-32", 1),
    promise("Bytes a second of one stream into the guest", "bytes-to-guest", 0.5),
    promise("Bytes a second of one stream out of the guest", "bytes-from-guest", 0.5),
  ];
}

const FORK_SAMPLES = 20;
/** Of so few samples the 99th percentile is the largest. */
const FORK_P99_SAMPLES = 50;

/** The promises of the scenario `fork`. Ten children and 64 MiB are its defaults: of a run with others those two are not measured. */
export function forkPromises(): PerformancePromise[] {
  const promise = (
    text: string,
    { subject, metric, statistic }: Figure,
    bound: Bound,
    leastSamples = FORK_SAMPLES,
  ): PerformancePromise => ({ text, figure: figure(subject, metric, statistic), bound, leastSamples });
  return [
    promise("An idle VM stands still for at most 10 ms when it is forked (median)", stopped("p50"), { atMost: 10 }),
    promise("And for at most 25 ms (99th percentile)", stopped("p99"), { atMost: 25 }, FORK_P99_SAMPLES),
    promise("A child of an idle VM is ready within 30 ms (median)", figure("fork", "child-ready", "p50"), {
      atMost: 30,
    }),
    promise("Ten children are ready within 120 ms", figure("fork", "children-ready-10", "p50"), { atMost: 120 }),
    promise("A child of an idle VM copies less than 1 MB", figure("fork", "delta-bytes", "max"), { below: MB }),
    promise("A checkpoint gives the CPUs back within 15 ms", figure("checkpoint", "vcpu-stopped", "p50"), {
      atMost: 15,
    }),
    promise("A suspended VM answers within 60 ms", figure("resume", "first-output", "p50"), { below: 60 }),
    promise(
      "A VM that has written 64 MiB stands still for at most 60 ms when it is forked",
      figure("fork", "parent-stopped-dirty-64", "p50"),
      { atMost: 60 },
    ),
  ];
}

/** Instances on which the promises rest that name their number. */
export const DENSITY_VMS = 1000;

/**
 * The promises of the scenario `density`. They hold for the lean QEMU and the minimal kernel, under software emulation as well.
 * @param vms instances of the run: with fewer than a promise names it stays open.
 */
export function densityPromises(vms: number = DENSITY_VMS): PerformancePromise[] {
  const promise = (text: string, { subject, metric, statistic }: Figure, bound: Bound, leastSamples = 1) => ({
    ...{ text, bound, leastSamples },
    figure: figure(subject, metric, statistic),
  });
  const most = (subject: Subject, metric: string) => figure(subject, metric, "max");
  const thousand = DENSITY_VMS.toLocaleString("en");
  const ofThousand = vms < DENSITY_VMS ? Number.POSITIVE_INFINITY : 1;
  return [
    promise("An idle VM takes at most 8 MB, with what the daemon grows by for it", most("mayfly", "memory"), {
      atMost: 8 * MB,
    }),
    promise("And at most 4 MB as a copy of a parent, of which that counts a part", most("mayfly-copies", "memory"), {
      atMost: 4 * MB,
    }),
    promise("And at most 4 MB where equal memory is merged", most("mayfly-merge", "memory"), { atMost: 4 * MB }),
    promise(`All of ${thousand} VMs answer`, most("mayfly", "unanswered"), { atMost: 0 }, DENSITY_VMS),
    promise(
      `At least 40 of ${thousand} VMs start in a second, with nothing prepared, a few at a time`,
      most("mayfly", "starts-per-second"),
      { atLeast: 40 },
      ofThousand,
    ),
    promise(
      `${thousand} paused VMs and their daemon take less than half a core`,
      most("mayfly-paused", "idle-cpu-all"),
      { below: 500 },
      ofThousand,
    ),
    promise("No process is left of VMs that were removed", most("mayfly", "processes-left"), { atMost: 0 }),
  ];
}

function stopped(statistic: Figure["statistic"]): Figure {
  return figure("fork", "parent-stopped", statistic);
}

/** How a bound is said before its number. */
export function boundWords(bound: Bound): string {
  if ("atLeast" in bound) return "at least";
  return "atMost" in bound ? "at most" : "below";
}

/** What became of a promise in a run. */
export interface Verdict {
  promise: PerformancePromise;
  outcome: "met" | "not met" | "too few samples" | "not measured";
  /** Absent when it was not measured. */
  measured?: number;
  /** The bound as a number of the same unit. */
  limit?: number;
  unit?: Unit;
  /** Samples behind it. */
  n: number;
}

/** Judges every promise by the rows of one run. */
export function judge(rows: readonly Row[], promises: readonly PerformancePromise[] = PROMISES): Verdict[] {
  return promises.map((promise) => judgeOne(promise, rows));
}

function judgeOne(promise: PerformancePromise, rows: readonly Row[]): Verdict {
  const { bound, leastSamples } = promise;
  const row = rowOf(promise.figure, rows);
  if (row === undefined) return { promise, outcome: "not measured", n: 0 };
  const measured = row[promise.figure.statistic];
  const known = { promise, measured, unit: row.unit, n: row.n };
  const limit = limitOf(bound, rows);
  if (limit === undefined) return { ...known, outcome: "not measured" };
  if (row.n < leastSamples) return { ...known, limit, outcome: "too few samples" };
  return { ...known, limit, outcome: keeps(measured, bound, limit) ? "met" : "not met" };
}

function keeps(measured: number, bound: Bound, limit: number): boolean {
  if ("atLeast" in bound) return measured >= limit;
  return "atMost" in bound ? measured <= limit : measured < limit;
}

function limitOf(bound: Bound, rows: readonly Row[]): number | undefined {
  const measuredOf = (other: Figure) => rowOf(other, rows)?.[other.statistic];
  if ("timesOf" in bound) {
    const value = measuredOf(bound.timesOf);
    return value === undefined ? undefined : ("atLeast" in bound ? bound.atLeast : bound.below) * value;
  }
  if ("moreThan" in bound) {
    const value = measuredOf(bound.moreThan);
    return value === undefined ? undefined : bound.atMost + value;
  }
  if ("atLeast" in bound) return bound.atLeast;
  return "atMost" in bound ? bound.atMost : bound.below;
}

function rowOf({ subject, metric }: Figure, rows: readonly Row[]): Row | undefined {
  return rows.find((row) => row.subject === subject && row.metric === metric);
}
