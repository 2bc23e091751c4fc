/** Prometheus' text exposition, version 0.0.4, of the engine's metrics and of this process. */
import type { Engine, HistogramSnapshot, SampleSnapshot } from "../engine/interface.ts";
import { processUsage } from "../sys/process-usage.ts";

type Labels = Readonly<Record<string, string>>;

/** The whole exposition. Metrics of one name stand together, as the format demands. */
export function exposition(metrics: ReturnType<Engine["metrics"]>): string {
  const families = new Map<string, string[]>();
  for (const sample of [...metrics.samples, ...ownSamples()]) {
    family(families, sample.name, sample.type, sample.help).push(
      `${sample.name}${labelSet(sample.labels)} ${numeral(sample.value)}`,
    );
  }
  for (const histogram of metrics.histograms) {
    family(families, histogram.name, "histogram", histogram.help).push(...histogramLines(histogram));
  }
  return `${[...families.values()].flat().join("\n")}\n`;
}

function family(families: Map<string, string[]>, name: string, type: string, help: string): string[] {
  const known = families.get(name);
  if (known !== undefined) return known;
  const lines = [`# HELP ${name} ${help.replaceAll("\\", "\\\\").replaceAll("\n", "\\n")}`, `# TYPE ${name} ${type}`];
  families.set(name, lines);
  return lines;
}

function histogramLines({ name, labels, buckets, sum, count }: HistogramSnapshot): string[] {
  const finite = buckets.filter(({ le }) => Number.isFinite(le));
  return [
    ...finite.map((bucket) => `${name}_bucket${labelSet({ ...labels, le: numeral(bucket.le) })} ${bucket.count}`),
    `${name}_bucket${labelSet({ ...labels, le: "+Inf" })} ${count}`,
    `${name}_sum${labelSet(labels)} ${numeral(sum)}`,
    `${name}_count${labelSet(labels)} ${count}`,
  ];
}

/** Names as Prometheus' own client libraries have them. */
function ownSamples(): SampleSnapshot[] {
  const usage = processUsage();
  const gauge = (name: string, help: string, value: number): SampleSnapshot => ({
    name,
    help,
    type: "gauge",
    labels: {},
    value,
  });
  return [
    gauge("process_resident_memory_bytes", "Resident memory of the daemon in bytes.", usage.rssBytes),
    gauge("process_open_fds", "Open file descriptors of the daemon.", usage.openDescriptors),
    gauge("process_start_time_seconds", "When the daemon was started, in seconds since 1970.", usage.startedAtSeconds),
    { ...gauge("process_cpu_seconds_total", "CPU time of the daemon in seconds.", usage.cpuSeconds), type: "counter" },
  ];
}

function labelSet(labels: Labels): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escapeLabel(value)}"`);
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
}

function escapeLabel(value: string): string {
  return value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}

function numeral(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  if (Number.isFinite(value)) return String(value);
  return value > 0 ? "+Inf" : "-Inf";
}
