import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { judge, type PerformancePromise, PROMISES } from "./promises.ts";
import { Samples } from "./samples.ts";

const figure = { subject: "clone", metric: "ready", statistic: "p50" } as const;
const ofRunc = { subject: "runc", metric: "first-output", statistic: "p50" } as const;
const promise = (bound: PerformancePromise["bound"], leastSamples = 1): PerformancePromise => ({
  text: "a promise",
  figure,
  bound,
  leastSamples,
});

function rowsOf(readyMs: readonly number[], runcMs: readonly number[] = []) {
  const samples = new Samples();
  for (const value of readyMs) samples.add("clone", "ready", "ms", value);
  for (const value of runcMs) samples.add("runc", "first-output", "ms", value);
  return samples.rows();
}

const outcome = (bound: PerformancePromise["bound"], rows = rowsOf([65])) => judge(rows, [promise(bound)])[0]?.outcome;

test("at most takes the bound itself, below does not", () => {
  expect(outcome({ atMost: 65 })).toBe("met");
  expect(outcome({ atMost: 64.9 })).toBe("not met");
  expect(outcome({ below: 65 })).toBe("not met");
  expect(outcome({ below: 65.1 })).toBe("met");
});

test("a multiple of another figure is judged within the run", () => {
  expect(outcome({ below: 3.5, timesOf: ofRunc }, rowsOf([65], [18.5, 18.6, 30]))).toBe("met");
  expect(outcome({ below: 3.5, timesOf: ofRunc }, rowsOf([65.2], [18.6]))).toBe("not met");
  expect(judge(rowsOf([60], [20]), [promise({ below: 3.5, timesOf: ofRunc })])[0]?.limit).toBe(70);
});

test("what was not measured, or too seldom, is neither met nor missed", () => {
  expect(outcome({ below: 3.5, timesOf: ofRunc })).toBe("not measured");
  expect(outcome({ atMost: 1 }, rowsOf([], [1]))).toBe("not measured");
  expect(judge(rowsOf([1, 2]), [promise({ atMost: 65 }, 3)])[0]?.outcome).toBe("too few samples");
});

test("the document states every promise as it is judged", () => {
  const document = readFileSync(join(import.meta.dir, "../docs/PERFORMANCE.md"), "utf8");
  const missing = PROMISES.map(({ text }) => text).filter((text) => !document.includes(text));
  expect(missing).toEqual([]);
});

test("rows are grouped by subject and metric, and the file has every sample", () => {
  const samples = new Samples();
  samples.add("clone", "ready", "ms", 2.00049);
  samples.add("runc", "first-output", "ms", 1);
  samples.add("clone", "ready", "ms", 4);
  expect(samples.rows()).toEqual([
    { subject: "clone", metric: "ready", unit: "ms", n: 2, p50: 2, p95: 4, p99: 4, max: 4 },
    { subject: "runc", metric: "first-output", unit: "ms", n: 1, p50: 1, p95: 1, p99: 1, max: 1 },
  ]);
  const lines = samples.toJsonLines({ scenario: "clone" }).trimEnd().split("\n");
  expect(lines).toHaveLength(4);
  expect(JSON.parse(lines[0] ?? "")).toEqual({ scenario: "clone" });
  expect(JSON.parse(lines[2] ?? "")).toMatchObject({ subject: "runc", metric: "first-output", unit: "ms", value: 1 });
});
