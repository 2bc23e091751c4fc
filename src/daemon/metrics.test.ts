import { expect, test } from "bun:test";
import { exposition } from "./metrics.ts";

const LINE =
  /^(# HELP \w+ .+|# TYPE \w+ (counter|gauge|histogram)|\w+(\{\w+="([^"\\\n]|\\[\\"n])*"(,\w+="([^"\\\n]|\\[\\"n])*")*\})? (-?[\d.e+-]+|NaN|[+-]Inf))$/;

test("text format: each family once, labels escaped, +Inf equal to the count", () => {
  const gauge = (state: string, value: number) =>
    ({ name: "vms", help: "VMs by state,\nall.", type: "gauge", labels: { state }, value }) as const;
  const histogram = (stage: string) => ({
    name: "stage_seconds",
    help: "Time of a stage.",
    labels: { stage },
    buckets: [
      { le: 0.01, count: 1 },
      { le: Number.POSITIVE_INFINITY, count: 4 },
    ],
    sum: 0.25,
    count: 4,
  });
  const text = exposition({
    samples: [gauge('a"\\\n', 1), gauge("b", Number.NaN)],
    histograms: [histogram("spawn"), histogram("load")],
  });
  expect(text).toEndWith("\n");
  const lines = text.trimEnd().split("\n");
  for (const line of lines) expect(line).toMatch(LINE);
  expect(lines.slice(0, 4)).toEqual([
    "# HELP vms VMs by state,\\nall.",
    "# TYPE vms gauge",
    'vms{state="a\\"\\\\\\n"} 1',
    'vms{state="b"} NaN',
  ]);
  expect(lines.slice(-10)).toEqual([
    "# HELP stage_seconds Time of a stage.",
    "# TYPE stage_seconds histogram",
    ...["spawn", "load"].flatMap((stage) => [
      `stage_seconds_bucket{stage="${stage}",le="0.01"} 1`,
      `stage_seconds_bucket{stage="${stage}",le="+Inf"} 4`,
      `stage_seconds_sum{stage="${stage}"} 0.25`,
      `stage_seconds_count{stage="${stage}"} 4`,
    ]),
  ]);
  for (const name of ["process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds_total"]) {
    expect(text).toMatch(new RegExp(`^${name} \\d`, "m"));
  }
});
