/**
 * Writes the figures of runs into docs/PERFORMANCE.md: `bun bench/document.ts RESULT.json...`, where a RESULT.json is what
 * `mayfly bench clone --json` printed, or `app`, `ports`, `fork`, `density` in its place. Tables of other scenarios and services stay as they are; without
 * a file all of them say that there is no such run.
 */
import { join } from "node:path";
import { CLONE_STAGES } from "../src/engine/stages.ts";
import { readOptional, writeText } from "../src/sys/paths.ts";
import { APPS, type App } from "./app/recipes.ts";
import type { AppReport } from "./app/scenario.ts";
import type { BenchReport } from "./clone.ts";
import { DENSITY_PEERS, VM_KINDS } from "./density/options.ts";
import type { DensityReport } from "./density/scenario.ts";
import type { ForkReport } from "./fork/scenario.ts";
import { PARTIES } from "./ports/busy.ts";
import type { PortsReport } from "./ports/scenario.ts";
import { NETWORKS, TRAFFIC_METRICS } from "./ports/subjects.ts";
import {
  appPromises,
  type Bound,
  boundWords,
  densityPromises,
  forkPromises,
  judge,
  portsPromises,
  type Verdict,
} from "./promises.ts";
import { formatValue } from "./report.ts";
import type { Row, Subject } from "./samples.ts";

/** Tables of the document by the name that stands in their markers. */
export type Tables = Readonly<Record<"machine" | "promises" | "times" | "stages" | "memory", string>>;

const TIME_METRICS = ["ready", "first-output", "cli"];
const MEMORY_METRICS = [
  ...["unique-memory", "unique-memory-guest", "unique-memory-used", "unique-memory-guest-used", "host-memory"],
  ...["rss-50-vms", "rss-50-vms-busy"],
];
const CLONES: readonly Subject[] = ["clone", "clone-copy", "clone-pool", "clone-warm"];
/** What is shown of the scenario `app`. */
const APP_METRICS = ["first-http", "first-output", "ready"];
const PROMISE_HEADING = ["promise", "decided by", "bound", "measured", "n", ""];
const NO_RUN = "*To be measured on a quiet machine.*";

/** The tables of a run of `clone`, as Markdown. */
export function tablesOf(report: BenchReport | undefined): Tables {
  const rows = report?.rows ?? [];
  return {
    machine: report === undefined ? NO_RUN : machine(report),
    promises: table(PROMISE_HEADING, judge(rows).map(promiseCells)),
    times: rows.length === 0 ? NO_RUN : summaries(rows.filter(({ metric }) => TIME_METRICS.includes(metric))),
    stages: rows.length === 0 ? NO_RUN : stages(rows),
    memory: rows.length === 0 ? NO_RUN : summaries(rows.filter(({ metric }) => MEMORY_METRICS.includes(metric))),
  };
}

/** The table of each service: what is promised, and what a run gave. */
export function appTables(
  reports: readonly AppReport[],
  apps: readonly App[] = reports.map(({ app }) => app),
): Record<string, string> {
  return Object.fromEntries(
    apps.map((app) => {
      const report = reports.find((candidate) => candidate.app === app);
      const rows = report?.rows ?? [];
      const promises = judge(rows, appPromises(app)).map(promiseCells);
      const parts = [table(PROMISE_HEADING, promises)];
      if (report === undefined) return [`app ${app}`, [...parts, NO_RUN].join("\n\n")];
      const facts = [...hostLines(report), peersLine(report)].map((line) => `- ${line}`).join("\n");
      const times = rows.filter(({ metric }) => APP_METRICS.includes(metric));
      return [`app ${app}`, [...parts, summaries(times), facts].join("\n\n")];
    }),
  );
}

/** The tables of a run of `ports`: what is promised and what it gave, and how much of one CPU each party used meanwhile. */
export function portsTables(report: PortsReport | undefined): Record<"ports" | "ports busy", string> {
  const rows = report?.rows ?? [];
  const promises = table(PROMISE_HEADING, judge(rows, portsPromises()).map(promiseCells));
  if (report === undefined) return { ports: `${promises}\n\n${NO_RUN}`, "ports busy": NO_RUN };
  const facts = hostLines(report).map((line) => `- ${line}`);
  const isTraffic = (row: Row) => TRAFFIC_METRICS.some((metric) => metric === row.metric);
  return {
    ports: [promises, summaries(rows.filter(isTraffic)), facts.join("\n")].join("\n\n"),
    "ports busy": busy(rows),
  };
}

/** The tables of a run of `fork`: what is promised and what it gave, and the picture of the curves, if the run has drawn them; else the one of before stays. */
export function forkTables(report: ForkReport | undefined): Record<string, string> {
  const rows = report?.rows ?? [];
  const promises = table(PROMISE_HEADING, judge(rows, forkPromises()).map(promiseCells));
  if (report === undefined) return { fork: `${promises}\n\n${NO_RUN}`, "fork curves": NO_RUN };
  const facts = hostLines(report).map((line) => `- ${line}`);
  const picture = "![Costs by the size of the guest and by what it has written](fork-cost.svg)";
  return {
    fork: [promises, summaries(rows), facts.join("\n")].join("\n\n"),
    ...(report.curves.length === 0 ? {} : { "fork curves": picture }),
  };
}

/** The tables of a run of `density`: what is promised and what it gave, each subject in a column, and the picture, as of `fork`. */
export function densityTables(report: DensityReport | undefined): Record<string, string> {
  const rows = report?.rows ?? [];
  const promises = table(PROMISE_HEADING, judge(rows, densityPromises(report?.vms)).map(promiseCells));
  if (report === undefined) return { density: `${promises}\n\n${NO_RUN}`, "density curves": NO_RUN };
  const { vms, concurrency, idleSeconds } = report;
  const facts = [
    `${vms} instances of each, ${concurrency} at a time, idle for ${idleSeconds} seconds`,
    ...hostLines(report),
    peersLine(report),
  ].map((line) => `- ${line}`);
  const picture =
    "![Memory of an idle instance, and the time that one more takes to start, by their number](density.svg)";
  return {
    density: [promises, bySubject(rows), facts.join("\n")].join("\n\n"),
    ...(report.curves.length === 0 ? {} : { "density curves": picture }),
  };
}

/** One line for each metric, one column for each subject: the median and the 99th percentile, or the only sample, or the largest count. */
function bySubject(rows: readonly Row[]): string {
  const subjects = [...VM_KINDS, ...DENSITY_PEERS].filter((name) => rows.some(({ subject }) => subject === name));
  const metrics = [...new Set(rows.map(({ metric }) => metric))];
  const cell = (metric: string, subject: Subject) => {
    const row = rows.find((candidate) => candidate.metric === metric && candidate.subject === subject);
    if (row === undefined) return "-";
    const median = formatValue(row.p50, row.unit);
    return row.n === 1 || row.unit === "count"
      ? formatValue(row.max, row.unit)
      : `${median}, ${formatValue(row.p99, row.unit)}`;
  };
  const cells = metrics.map((metric) => [metric, ...subjects.map((subject) => cell(metric, subject))]);
  return table(["", ...subjects.map((subject) => `\`${subject}\``)], cells);
}

function busy(rows: readonly Row[]): string {
  const cells = TRAFFIC_METRICS.flatMap((metric) =>
    NETWORKS.map((network) => [
      metric,
      `\`${network}\``,
      ...PARTIES.map((party) => {
        const row = rows.find(({ subject, metric: name }) => subject === network && name === `${metric} ${party}`);
        return row === undefined ? "-" : `${Math.round(row.p50 * 100)} %`;
      }),
    ]),
  );
  return table(["CPU time, p50", "", ...PARTIES], cells);
}

/** The document with what stands between each table's markers replaced. @throws Error when a marker is missing. */
export function fill(document: string, tables: Readonly<Record<string, string>>): string {
  return Object.entries(tables).reduce((text, [name, content]) => {
    const [begin, end] = [`<!-- ${name} -->\n`, `<!-- end of ${name} -->`];
    const [from, to] = [text.indexOf(begin), text.indexOf(end)];
    if (from < 0 || to < from) throw new Error(`The document has no place for ${name}: ${begin.trim()} ... ${end}`);
    return `${text.slice(0, from + begin.length)}\n${content}\n\n${text.slice(to)}`;
  }, document);
}

function machine({ host, commit, rows }: BenchReport): string {
  const single = (metric: string) => {
    const row = rows.find((candidate) => candidate.metric === metric);
    return row === undefined ? "?" : formatValue(row.max, row.unit);
  };
  const facts = [
    ...hostLines({ host, commit }),
    `warm requests: ${host.warmRequestsPerSecond ?? "none"} a second, of ${single("refill-rate")} that the pool can refill; ${single("misses")} found it empty`,
    `clones one after another: ${single("sequential-rate")}; the slowest of those asked for at once ready after ${single("burst-slowest")}`,
    peersLine({ host }),
  ];
  return facts.map((fact) => `- ${fact}`).join("\n");
}

function hostLines({ host, commit }: Pick<PortsReport, "host" | "commit">): string[] {
  return [
    `${host.cpus} x ${host.cpu}, ${(host.memoryBytes / 1e9).toFixed(1)} GB, ${host.os}, Linux ${host.kernel}`,
    `load average as the run began: ${host.loadAverage.join(", ")}`,
    `QEMU ${host.qemu}, ${host.accelerator}, guest kernel ${host.guestKernel}, Bun ${host.bun}`,
    `Mayfly ${host.mayfly}, commit ${commit ?? "unknown"}`,
  ];
}

function peersLine({ host }: Pick<AppReport, "host">): string {
  const peers = Object.entries(host.peers).map(([name, { version, note }]) =>
    note === null ? `${name} ${version}` : `${name} ${version} (${note})`,
  );
  return `peers: ${peers.join("; ") || "none"}`;
}

function promiseCells({ promise, outcome, measured, limit, unit = "ms", n }: Verdict): string[] {
  const { text, figure, bound } = promise;
  const words = boundWords(bound);
  const value = (number: number) => formatValue(number, unitOf(figure.metric) ?? unit);
  const other = otherOf(bound, value);
  const number = "timesOf" in bound || "moreThan" in bound ? "" : value(plainBound(bound));
  const reached = other === "" || limit === undefined ? "" : ` = ${value(limit)}`;
  return [
    text,
    `\`${figure.subject}\` ${figure.metric} ${figure.statistic}`,
    `${words} ${other || number}${reached}`,
    measured === undefined ? "pending" : value(measured),
    n === 0 ? "" : String(n),
    outcome === "not measured" ? "" : outcome,
  ];
}

/** The number of a bound that names no other figure. */
function plainBound(bound: Bound): number {
  if ("atLeast" in bound) return bound.atLeast;
  return "atMost" in bound ? bound.atMost : bound.below;
}

/** The other figure that a bound names, with how it counts. */
function otherOf(bound: Bound, value: (number: number) => string): string {
  if ("timesOf" in bound)
    return `${"atLeast" in bound ? bound.atLeast : bound.below} x \`${bound.timesOf.subject}\` ${bound.timesOf.metric}`;
  if ("moreThan" in bound) return `${value(bound.atMost)} + \`${bound.moreThan.subject}\` ${bound.moreThan.metric}`;
  return "";
}

/** Units of metrics whose promise is shown before anything was measured. */
function unitOf(metric: string): Row["unit"] | undefined {
  if (metric.startsWith("delta-bytes") || metric.startsWith("unique-memory") || metric.startsWith("rss-"))
    return "bytes";
  if (metric === "memory") return "bytes";
  if (metric === "burst-ratio") return "ratio";
  if (metric === "starts-per-second") return "per-second";
  return ["burst-failed", "unanswered", "processes-left"].includes(metric) ? "count" : undefined;
}

function summaries(rows: readonly Row[]): string {
  const cells = rows.map(({ subject, metric, unit, n, p50, p95, p99, max }) => [
    ...[`\`${subject}\``, metric, String(n)],
    ...[p50, p95, p99, max].map((value) => formatValue(value, unit)),
  ]);
  return table(["subject", "metric", "n", "p50", "p95", "p99", "max"], cells);
}

function stages(rows: readonly Row[]): string {
  const cells = [...CLONE_STAGES.map((stage) => `stage-${stage}`), "ready"].map((metric) => [
    metric.replace("stage-", ""),
    ...CLONES.map((subject) => {
      const row = rows.find((candidate) => candidate.subject === subject && candidate.metric === metric);
      return row === undefined ? "-" : formatValue(row.p50, row.unit);
    }),
  ]);
  return table(["stage, p50", ...CLONES.map((subject) => `\`${subject}\``)], cells);
}

function table(heading: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  return [line(heading), line(heading.map(() => "---")), ...rows.map(line)].join("\n");
}

if (import.meta.main) {
  const path = join(import.meta.dir, "../docs/PERFORMANCE.md");
  const texts = await Promise.all(process.argv.slice(2).map((result) => readOptional(result)));
  const reports: (BenchReport | AppReport | PortsReport | ForkReport | DensityReport)[] = texts.map((text) =>
    JSON.parse(text ?? ""),
  );
  const clone = reports.find((report) => report.scenario === "clone");
  const apps = reports.filter((report) => report.scenario === "app");
  const ports = reports.find((report) => report.scenario === "ports");
  const fork = reports.find((report) => report.scenario === "fork");
  const density = reports.find((report) => report.scenario === "density");
  const isNone = reports.length === 0;
  await writeText(
    path,
    fill((await readOptional(path)) ?? "", {
      ...(clone !== undefined || isNone ? tablesOf(clone) : {}),
      ...appTables(apps, isNone ? APPS : undefined),
      ...(ports !== undefined || isNone ? portsTables(ports) : {}),
      ...(fork !== undefined || isNone ? forkTables(fork) : {}),
      ...(density !== undefined || isNone ? densityTables(density) : {}),
    }),
  );
}
