import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { APPS } from "./app/recipes.ts";
import type { BenchReport } from "./clone.ts";
import { appTables, fill, portsTables, tablesOf } from "./document.ts";
import { Samples } from "./samples.ts";

function reportOf(samples: Samples): BenchReport {
  const host = {
    ...{ cpu: "a CPU", cpus: 2, memoryBytes: 4e9, os: "an OS", kernel: "6.1", loadAverage: [0, 0, 0] },
    ...{ mayfly: "0.1.0", bun: "1.4", qemu: "10.0.2 (full)", accelerator: "tcg", guestKernel: "6.1" },
    ...{ peers: { runc: { version: "1.1", note: null } }, warmRequestsPerSecond: 4 },
  };
  return { scenario: "clone", host, commit: "abc", rows: samples.rows() };
}

test("the document has a place for every table", () => {
  const document = readFileSync(join(import.meta.dir, "../docs/PERFORMANCE.md"), "utf8");
  const tables = { ...tablesOf(undefined), ...appTables([], APPS), ...portsTables(undefined) };
  const once = fill(document, tables);
  expect(fill(once, tables)).toBe(once);
  expect(() => fill(document.replace("<!-- stages -->", ""), tablesOf(undefined))).toThrow("no place for stages");
});

test("a service's figures stand in its own table", () => {
  const samples = new Samples();
  for (let index = 0; index < 20; index += 1) {
    samples.add("podman", "first-http", "ms", 300);
    samples.add("warm", "first-http", "ms", 30);
    samples.add("base-echo", "first-output", "ms", 20);
    samples.add("image-echo", "first-output", "ms", 40);
  }
  const { host, commit } = reportOf(samples);
  const tables = appTables([{ scenario: "app", app: "java", host, commit, rows: samples.rows() }]);
  expect(Object.keys(tables)).toEqual(["app java"]);
  expect(tables["app java"]).toContain("| below 0.1 x `podman` first-http = 30.0 ms | 30.0 ms | 20 | not met |");
  expect(tables["app java"]).toContain(
    "| at most 15.0 ms + `base-echo` first-output = 35.0 ms | 40.0 ms | 20 | not met |",
  );
  expect(tables["app java"]).toContain("| `warm` | first-http | 20 | 30.0 ms |");
});

test("figures stand where they belong", () => {
  const samples = new Samples();
  for (let index = 0; index < 20; index += 1) {
    samples.add("clone", "ready", "ms", 10);
    samples.add("clone", "first-output", "ms", 15);
    samples.add("clone", "stage-agent", "ms", 44);
    samples.add("runc", "first-output", "ms", 20);
    samples.add("clone", "unique-memory", "bytes", 14e6);
  }
  const { promises, times, stages, memory } = tablesOf(reportOf(samples));
  expect(promises).toContain(
    "| A clone with nothing prepared is ready within 20 ms (median) | `clone` ready p50 | at most 20.0 ms | 10.0 ms | 20 | met |",
  );
  expect(promises).toContain("| below 1 x `runc` first-output = 20.0 ms | 15.0 ms | 20 | met |");
  expect(promises).toContain("| at most 15.00 MB | 14.00 MB | 20 | met |");
  expect(promises).toContain("| below 0.5 x `podman` cli | pending |  |  |");
  expect(times).toContain("| `runc` | first-output | 20 | 20.0 ms | 20.0 ms | 20.0 ms | 20.0 ms |");
  expect(stages).toContain("| agent | 44.0 ms | - | - |");
  expect(memory.split("\n")).toHaveLength(3);
});

test("traffic through ports is promised as a part of the same over the user-mode network", () => {
  const samples = new Samples();
  for (let index = 0; index < 10; index += 1) {
    samples.add("forwarded", "http-kept-1", "per-second", 900);
    samples.add("slirp", "http-kept-1", "per-second", 1000);
    samples.add("forwarded", "bytes-to-guest", "bytes-per-second", 60e6);
    samples.add("slirp", "bytes-to-guest", "bytes-per-second", 100e6);
    samples.add("forwarded", "bytes-to-guest daemon", "ratio", 0.254);
  }
  const { host, commit } = reportOf(samples);
  const tables = portsTables({ scenario: "ports", host, commit, rows: samples.rows() });
  expect(tables.ports).toContain("| at least 1 x `slirp` http-kept-1 = 1000.0 /s | 900.0 /s | 10 | not met |");
  expect(tables.ports).toContain("| at least 0.5 x `slirp` bytes-to-guest = 50.0 MB/s | 60.0 MB/s | 10 | met |");
  expect(tables.ports).not.toContain("daemon");
  expect(tables["ports busy"]).toContain("| bytes-to-guest | `forwarded` | - | - | 25 % | - |");
});
