/** A run for people: what it was measured on, all rows, histograms, and what became of the promises. */
import { formatFacts, formatTable } from "../src/cli/output.ts";
import type { AppReport } from "./app/scenario.ts";
import type { BenchReport } from "./clone.ts";
import type { DensityReport } from "./density/scenario.ts";
import type { ForkReport } from "./fork/scenario.ts";
import { histogram } from "./histogram.ts";
import type { PortsReport } from "./ports/scenario.ts";
import { boundWords, type Verdict } from "./promises.ts";
import type { Row, Samples, Subject, Unit } from "./samples.ts";

const BAR_CHARACTERS = 40;
const BARS = 12;
/** Most of the samples are within so many medians; the rest goes into the last bar. */
const SHOWN_MEDIANS = 3;
/** Subject, metric and title of a histogram. */
type Picture = readonly [Subject, string, string];
const PICTURES: readonly Picture[] = [
  ["clone", "ready", "clone, nothing prepared: request to ready"],
  ["clone-copy", "ready", "clone copied from its parent: request to ready"],
  ["clone-pool", "ready", "clone in a QEMU started before: request to ready"],
  ["clone-warm", "ready", "warm clone: request to ready"],
  ["clone-warm", "first-output", "warm clone: request to first output"],
  ["runc", "first-output", "runc: start to first output"],
];

/** A value as people read it. */
export function formatValue(value: number, unit: Unit): string {
  if (unit === "ms") return value < 1000 ? `${value.toFixed(value < 10 ? 2 : 1)} ms` : `${(value / 1000).toFixed(2)} s`;
  if (unit === "bytes") return `${(value / 1e6).toFixed(2)} MB`;
  if (unit === "bytes-per-second") return `${(value / 1e6).toFixed(1)} MB/s`;
  if (unit === "per-second") return `${value.toFixed(1)} /s`;
  return unit === "ratio" ? value.toFixed(2) : String(value);
}

/** A run as it is told to people. */
export interface Told {
  /** What it was measured on. */
  facts: readonly (readonly [string, string])[];
  rows: readonly Row[];
  /** Histograms: of what, and their titles. */
  pictures: readonly Picture[];
}

/** The whole report. */
export function formatReport({ facts, rows, pictures }: Told, samples: Samples, verdicts: readonly Verdict[]): string {
  const parts = [formatFacts(facts), formatRows(rows), formatPictures(pictures, samples), formatVerdicts(verdicts)];
  return parts.join("\n");
}

/** What the scenario `clone` tells. */
export function toldOfClone({ host, commit, rows }: BenchReport): Told {
  const refill = rows.find((row) => row.metric === "refill-rate")?.p50;
  const rate = host.warmRequestsPerSecond;
  const warm: [string, string][] =
    rate === null
      ? []
      : [["Warm requests", `${rate} a second; the pool can refill ${refill?.toFixed(1) ?? "?"} a second`]];
  return { facts: [...machineFacts(host, commit), ...warm], rows, pictures: PICTURES };
}

/** What the scenario `app` tells. */
export function toldOfApp({ app, host, commit, rows }: AppReport): Told {
  const pictures: Picture[] = (["podman", "run", "warm", "warm-copy", "warm-cold"] as const).map((subject) => [
    ...([subject, "first-http"] as const),
    `${subject}: request to first answer`,
  ]);
  return { facts: [["Service", app], ...machineFacts(host, commit)], rows, pictures };
}

/** What the scenario `ports` tells. */
export function toldOfPorts({ host, commit, rows }: PortsReport): Told {
  return { facts: machineFacts({ ...host, peers: {} }, commit), rows, pictures: [] };
}

/** What the scenario `fork` tells. */
export function toldOfFork({ host, commit, rows }: ForkReport): Told {
  const pictures: Picture[] = [
    ["fork", "parent-stopped", "fork: the parent stands still"],
    ["fork", "child-ready", "fork: request to ready"],
    ["resume", "first-output", "resume: request to first output"],
  ];
  return { facts: machineFacts({ ...host, peers: {} }, commit), rows, pictures };
}

/** What the scenario `density` tells. */
export function toldOfDensity({ vms, concurrency, host, commit, rows }: DensityReport): Told {
  const instances: [string, string] = ["Instances", `${vms} of each, ${concurrency} at a time`];
  const pictures: Picture[] = (["mayfly", "containerd", "podman"] as const).map((subject) => [
    ...([subject, "start"] as const),
    `${subject}: start of one`,
  ]);
  return { facts: [instances, ...machineFacts(host, commit)], rows, pictures };
}

function machineFacts(host: AppReport["host"], commit: string | null): [string, string][] {
  const peers = Object.entries(host.peers).map(([name, { version }]) => `${name} ${version}`);
  return [
    ["Machine", `${host.cpus} x ${host.cpu}, ${(host.memoryBytes / 1e9).toFixed(1)} GB, load ${host.loadAverage[0]}`],
    ["System", `${host.os}, Linux ${host.kernel}`],
    ["Mayfly", `${host.mayfly} (${commit ?? "no checkout"}), Bun ${host.bun}`],
    ["QEMU", `${host.qemu}, ${host.accelerator}, guest kernel ${host.guestKernel}`],
    ["Peers", peers.join(", ") || "none"],
  ];
}

function formatRows(rows: readonly Row[]): string {
  const cells = rows.map(({ subject, metric, unit, n, ...summary }) => [
    ...[subject, metric, String(n)],
    ...[summary.p50, summary.p95, summary.p99, summary.max].map((value) => formatValue(value, unit)),
  ]);
  return formatTable(["SUBJECT", "METRIC", "N", "P50", "P95", "P99", "MAX"], cells);
}

function formatPictures(pictures: readonly Picture[], samples: Samples): string {
  return pictures
    .map(([subject, metric, title]) => {
      const values = samples.values(subject, metric);
      return values.length === 0 ? "" : `${title}\n${formatHistogram(values)}`;
    })
    .filter((text) => text !== "")
    .join("\n");
}

/** A histogram of milliseconds, indented, whose last bar takes the stragglers. */
export function formatHistogram(valuesMs: readonly number[]): string {
  const median = valuesMs.toSorted((a, b) => a - b)[valuesMs.length >> 1] ?? 0;
  const lines = histogram(valuesMs, { width: BAR_CHARACTERS, bars: BARS, unit: "ms" }, median * SHOWN_MEDIANS);
  return lines.map((line) => `  ${line}\n`).join("");
}

/** One line to each promise: the verdict, both numbers. */
export function formatVerdicts(verdicts: readonly Verdict[]): string {
  const rows = verdicts.map(({ promise, outcome, measured, limit, unit = "count", n }) => [
    outcome === "not met" ? "NOT MET" : outcome,
    promise.text,
    measured === undefined ? "-" : formatValue(measured, unit),
    limit === undefined ? "-" : `${boundWords(promise.bound)} ${formatValue(limit, unit)}`,
    String(n),
  ]);
  const notes = verdicts.some(({ outcome }) => outcome === "too few samples")
    ? "A promise with too few samples is not judged: more --runs or --requests decide it.\n"
    : "";
  return formatTable(["VERDICT", "PROMISE", "MEASURED", "PROMISED", "N"], rows) + notes;
}
