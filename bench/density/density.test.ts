import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { densityTables, fill } from "../document.ts";
import { plotSvg } from "../fork/plot.ts";
import { densityPromises, judge } from "../promises.ts";
import { toldOfDensity } from "../report.ts";
import { Samples } from "../samples.ts";
import { panelsOf, pointsUpTo } from "./curves.ts";
import { missingFor } from "./offered.ts";
import { densityOptions } from "./options.ts";
import type { DensityReport } from "./scenario.ts";
import { several } from "./several.ts";

const document = readFileSync(join(import.meta.dir, "../../docs/PERFORMANCE.md"), "utf8");

test("options of the scenario", () => {
  expect(densityOptions([], false)).toEqual({
    ...{
      vms: 100,
      kinds: ["mayfly", "mayfly-copies", "mayfly-paused", "mayfly-merge", "mayfly-suspended"],
      peers: [],
      concurrency: 4,
    },
    ...{ idleSeconds: 10, qemu: undefined, kernel: undefined, plotPath: undefined, samplesPath: undefined },
    ...{ enforce: false, json: false },
  });
  const words =
    "--vms 1000 --kinds mayfly-merge,mayfly --peers podman,containerd --concurrency=8 --idle 30 --qemu lean --kernel minimal --plot /p.svg --samples f --enforce --json";
  expect(densityOptions(words.split(" "), false)).toEqual({
    ...{ vms: 1000, kinds: ["mayfly", "mayfly-merge"], peers: ["containerd", "podman"], concurrency: 8 },
    ...{ idleSeconds: 30, qemu: "lean", kernel: "minimal", plotPath: "/p.svg", samplesPath: "f" },
    ...{ enforce: true, json: true },
  });
  expect(densityOptions(["--kinds", "", "--peers", ""], true)).toMatchObject({ kinds: [], peers: [], json: true });
  expect(densityOptions(["--help"], false)).toBeUndefined();
});

test.each([
  [["--vms", "0"], '--vms is "0", which is no number above 0'],
  [["--vms", "4001"], "--vms is 4001, more than 4000"],
  [["--idle", "1.5"], "no whole number"],
  [["--kinds", "mayfly,vm"], "--kinds names vm; there are mayfly, mayfly-copies, mayfly-paused"],
  [["--peers", "docker"], "--peers names docker; there are containerd, podman"],
  [["web"], 'unexpected argument "web"'],
])("%p is refused", (words, message) => {
  expect(() => densityOptions(words, false)).toThrow(message);
});

test("what every VM can is never missing", () => {
  expect((["mayfly", "mayfly-suspended"] as const).map((kind) => missingFor(kind, "tcg"))).toEqual([
    undefined,
    undefined,
  ]);
});

test("with KVM nothing is copied", () => {
  expect(missingFor("mayfly-copies", "tcg")).toBeUndefined();
  expect(missingFor("mayfly-copies", "kvm")).toContain("KVM");
});

test("several things are done a few at a time, in order", async () => {
  const begun: number[] = [];
  let [running, most] = [0, 0];
  await several([1, 2, 3, 4, 5, 6, 7], 3, async (item) => {
    begun.push(item);
    running += 1;
    most = Math.max(most, running);
    await Bun.sleep(item % 2);
    running -= 1;
  });
  expect({ begun, most, running }).toEqual({ begun: [1, 2, 3, 4, 5, 6, 7], most: 3, running: 0 });
});

test("after one of several has failed no other is begun, and those that were have ended", async () => {
  const [begun, ended]: [number[], number[]] = [[], []];
  const doing = several([1, 2, 3, 4, 5], 2, async (item) => {
    begun.push(item);
    if (item === 2) throw new Error("two");
    await Bun.sleep(1);
    ended.push(item);
  });
  expect(await doing.catch((error: Error) => error.message)).toBe("two");
  expect({ begun, ended }).toEqual({ begun: [1, 2], ended: [1] });
  await several([], 2, () => Promise.reject(new Error("none")));
});

test("points of the picture end with the number that was asked for", () => {
  expect(pointsUpTo(1)).toEqual([1]);
  expect(pointsUpTo(20)).toEqual([1, 2, 5, 10, 20]);
  expect(pointsUpTo(1000)).toEqual([1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]);
  expect(pointsUpTo(1200).slice(-2)).toEqual([1000, 1200]);
});

test("the picture has memory in MB and starts in milliseconds", () => {
  const memory = [
    { x: 1, y: 8 },
    { x: 1000, y: 9 },
  ];
  const panels = panelsOf([{ label: "mayfly", memory, start: [{ x: 1, y: 25 }] }]);
  expect(panels.map(({ title, scale, lines }) => [title, scale, lines.length])).toEqual([
    ["Memory of an idle instance", "MB", 1],
    ["Start of one more", undefined, 1],
  ]);
  const svg = plotSvg(panels);
  expect(svg).toContain(">10 MB<");
  expect(svg).toContain(">100 ms<");
  expect(svg).not.toContain("NaN");
  expect(panelsOf([])).toEqual([]);
});

function reportOf(samples: Samples, vms: number): DensityReport {
  const host = {
    ...{ cpu: "a CPU", cpus: 2, memoryBytes: 4e9, os: "an OS", kernel: "6.1", loadAverage: [0, 0, 0] },
    ...{ mayfly: "0.1.0", bun: "1.4", qemu: "10.0.2 (lean)", accelerator: "tcg", guestKernel: "6.1" },
    peers: { podman: { version: "4.3.1 with crun 1.8.1", note: null } },
  };
  const head = { scenario: "density", vms, concurrency: 4, idleSeconds: 10, host, commit: "abc" } as const;
  return { ...head, rows: samples.rows(), curves: [] };
}

function measured(vms: number): Samples {
  const samples = new Samples();
  samples.add("mayfly", "memory", "bytes", 7e6);
  samples.add("podman", "memory", "bytes", 1e6);
  samples.add("mayfly", "starts-per-second", "per-second", 41);
  samples.add("mayfly-copies", "memory", "bytes", 3e6);
  samples.add("mayfly-paused", "idle-cpu-all", "ms", 80);
  for (let index = 0; index < vms; index += 1) {
    samples.add("mayfly", "unanswered", "count", 0);
    samples.add("mayfly", "start", "ms", 90 + index);
  }
  return samples;
}

test("promises that name a number of VMs are judged by as many", () => {
  const outcomes = (vms: number) =>
    judge(measured(vms).rows(), densityPromises(vms)).map(({ outcome, n }) => `${outcome} ${n}`);
  const few = "too few samples";
  expect(outcomes(1000)).toEqual(["met 1", "met 1", "not measured 0", "met 1000", "met 1", "met 1", "not measured 0"]);
  expect(outcomes(10)).toEqual([
    "met 1",
    "met 1",
    "not measured 0",
    `${few} 10`,
    `${few} 1`,
    `${few} 1`,
    "not measured 0",
  ]);
});

test("each subject has a column in the document", () => {
  const { density, "density curves": curves } = densityTables(reportOf(measured(1000), 1000));
  expect(density).toContain(
    "| An idle VM takes at most 8 MB, with what the daemon grows by for it | `mayfly` memory max | at most 8.00 MB | 7.00 MB | 1 | met |",
  );
  expect(density).toContain("| at least 40.0 /s | 41.0 /s | 1 | met |");
  expect(density).toContain("| below 500.0 ms | 80.0 ms | 1 | met |");
  expect(density).toContain("|  | `mayfly` | `mayfly-copies` | `mayfly-paused` | `podman` |");
  expect(density).toContain("| memory | 7.00 MB | 3.00 MB | - | 1.00 MB |");
  expect(density).toContain("| start | 589.0 ms, 1.08 s | - | - |");
  expect(density).toContain("- 1000 instances of each, 4 at a time, idle for 10 seconds");
  expect(density).toContain("- peers: podman 4.3.1 with crun 1.8.1");
  expect(curves).toBeUndefined();
});

test("the document has its places, states its promises, and knows their units before there is a run", () => {
  const tables = densityTables(undefined);
  expect(fill(document, tables)).toContain("| at most 8.00 MB | pending |");
  expect(tables["density"]).toContain("| at least 40.0 /s | pending |");
  expect(tables["density"]).toContain("| at most 0 | pending |");
  for (const { text } of densityPromises()) expect(document).toContain(text);
});

test("people are told how many there were", () => {
  expect(toldOfDensity(reportOf(measured(3), 3)).facts[0]).toEqual(["Instances", "3 of each, 4 at a time"]);
});
