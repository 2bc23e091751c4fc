import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fill, forkTables } from "../document.ts";
import { forkPromises, judge } from "../promises.ts";
import { Samples } from "../samples.ts";
import { forkOptions } from "./options.ts";
import { plotSvg } from "./plot.ts";
import { plainShape } from "./qemu-takers.ts";
import type { ForkReport } from "./scenario.ts";
import { guestFor } from "./vms.ts";

const document = readFileSync(join(import.meta.dir, "../../docs/PERFORMANCE.md"), "utf8");

test("options of the scenario", () => {
  expect(forkOptions([], false)).toEqual({
    ...{ runs: 50, depth: 5, children: 10, dirtyMiB: 64, qemu: true, plotPath: undefined },
    ...{ sizesMiB: [128, 256, 512, 1024, 2048, 4096], samplesPath: undefined, enforce: false, json: false },
  });
  const words =
    "--runs 3 --depth=10 --children 2 --dirty 16 --no-qemu --plot /p.svg --sizes 512,128 --samples f --json";
  expect(forkOptions(words.split(" "), false)).toEqual({
    ...{ runs: 3, depth: 10, children: 2, dirtyMiB: 16, qemu: false, plotPath: "/p.svg" },
    ...{ sizesMiB: [128, 512], samplesPath: "f", enforce: false, json: true },
  });
  expect(forkOptions(["--help"], false)).toBeUndefined();
  expect(() => forkOptions(["--sizes", "128,100"], false)).toThrow("--sizes has 100; guests have 96, 128");
  expect(() => forkOptions(["--children", "257"], false)).toThrow("--children is 257, more than 256");
  expect(() => forkOptions(["--depth", "x"], false)).toThrow('--depth is "x"');
  expect(() => forkOptions(["web"], false)).toThrow('unexpected argument "web"');
});

test("a guest is large enough for what it shall write", () => {
  expect([0, 16, 64, 256, 1024].map(guestFor)).toEqual([128, 128, 256, 1024, 4096]);
  expect(() => guestFor(10_000)).toThrow("No guest takes 10000 MiB");
});

function reportOf(samples: Samples): ForkReport {
  const host = {
    ...{ cpu: "a CPU", cpus: 2, memoryBytes: 4e9, os: "an OS", kernel: "6.1", loadAverage: [0, 0, 0] },
    ...{ mayfly: "0.1.0", bun: "1.4", qemu: "10.0.2 (full)", accelerator: "tcg", guestKernel: "6.1" },
  };
  const head = { scenario: "fork", depth: 5, children: 10, dirtyMiB: 64, commit: "abc" } as const;
  return { ...head, host, rows: samples.rows(), curves: [] };
}

test("a VM without a template has a size that guests boot with", () => {
  expect([128, 2048, 4096].map((memoryMiB) => plainShape(memoryMiB))).toEqual(
    [128, 2052, 4096].map((memoryMiB) => ({ memoryMiB, vcpus: 1 })),
  );
});

test("promises are judged, and stand in the document with the figures", () => {
  const samples = new Samples();
  for (let index = 0; index < 50; index += 1) {
    samples.add("fork", "parent-stopped", "ms", index === 0 ? 26 : 9);
    samples.add("fork", "child-ready", "ms", 30);
    samples.add("fork", "delta-bytes", "bytes", 700_000);
    samples.add("resume", "first-output", "ms", 60);
    samples.add("savevm", "parent-stopped", "ms", 120);
  }
  const outcomes = judge(samples.rows(), forkPromises()).map(({ outcome }) => outcome);
  const open = "not measured";
  expect(outcomes).toEqual(["met", "not met", "met", open, "met", open, "not met", open]);
  const { fork, "fork curves": curves } = forkTables(reportOf(samples));
  expect(fork).toContain("| `fork` parent-stopped p99 | at most 25.0 ms | 26.0 ms | 50 | not met |");
  expect(fork).toContain("| `fork` delta-bytes max | below 1.00 MB | 0.70 MB | 50 | met |");
  expect(fork).toContain("| `savevm` | parent-stopped | 50 | 120.0 ms |");
  expect(curves).toBeUndefined(); // the picture of before stays
  expect(forkTables({ ...reportOf(samples), curves: [{ title: "t", unit: "u", lines: [] }] })["fork curves"]).toContain(
    "(fork-cost.svg)",
  );
});

test("the document states every promise, and has a place for the tables", () => {
  expect(
    forkPromises()
      .map(({ text }) => text)
      .filter((text) => !document.includes(text)),
  ).toEqual([]);
  const tables = forkTables(undefined);
  const once = fill(document, tables);
  expect(fill(once, tables)).toBe(once);
});

test("a picture has every curve once in its legend, and all points within its bounds", () => {
  const line = (label: string, ...points: [number, number][]) => ({
    label,
    points: points.map(([x, y]) => ({ x, y })),
  });
  const svg = plotSvg([
    {
      title: "By <size>",
      unit: "MiB",
      lines: [line("a & b", [128, 5], [4096, 5]), line("c", [128, 90], [4096, 4000])],
    },
    { title: "By writes", unit: "MiB written", lines: [line("c", [0, 1.5], [4, 2], [256, 900])] },
  ]);
  expect(svg).toStartWith("<svg ");
  expect(svg.match(/<polyline/g)).toHaveLength(3);
  expect(svg).toContain("By &lt;size>");
  // What it says to who cannot see it.
  expect(svg).toContain("<title>By &lt;size>; By writes</title>");
  expect(svg).toContain(">a &amp; b</text>");
  expect(svg).toContain(">10 s</text>");
  expect(svg).not.toContain("NaN");
  const points = [...svg.matchAll(/points="([^"]+)" fill="none"/g)].flatMap(([, text = ""]) => text.split(" "));
  expect(points).toHaveLength(7);
  for (const point of points) {
    const [x = -1, y = -1] = point.split(",").map(Number);
    expect(x >= 70 && x <= 540 && y >= 40 && y <= 550).toBe(true);
  }
});
