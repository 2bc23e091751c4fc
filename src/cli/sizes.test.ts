import { expect, test } from "bun:test";
import { formatBytes, formatElapsed, parseBytes, parseCount, parseDurationMs, parsePositive } from "./sizes.ts";

test.each([
  ["128m", 134_217_728],
  ["1g", 1_073_741_824],
  ["1.5G", 1_610_612_736],
  ["512MiB", 536_870_912],
  ["512MB", 536_870_912],
  ["4096", 4096],
  ["4096b", 4096],
  ["2k", 2048],
  [" 1t ", 1_099_511_627_776],
])("size %s is %d bytes", (text, bytes) => {
  expect(parseBytes("--memory", text)).toBe(bytes);
});

test.each(["", "m", "0", "0.0m", "-1g", "1x", "1e3", "1gg", "1 g g", "99999999t", "0x10"])("%j is no size", (text) => {
  expect(() => parseBytes("--memory", text)).toThrow(
    `--memory is ${JSON.stringify(text)}, which is not a size such as 128m or 1g`,
  );
});

test.each([
  [0, "0B"],
  [999, "999B"],
  [1024, "1KiB"],
  [1536, "1.5KiB"],
  [40_055_603, "38.2MiB"],
  [134_217_728, "128MiB"],
  [1_073_741_823, "1GiB"],
  [5_497_558_138_880, "5TiB"],
])("%d bytes are shown as %s", (bytes, text) => {
  expect(formatBytes(bytes)).toBe(text);
});

test.each([
  ["10", 10_000],
  ["0.5", 500],
  ["500ms", 500],
  ["30s", 30_000],
  ["1h30m", 5_400_000],
  ["1d", 86_400_000],
  ["0", 0],
])("duration %s is %d ms", (text, ms) => {
  expect(parseDurationMs("--timeout", text)).toBe(ms);
});

test.each(["", "x", "5 minutes", "-1", "1h 30m", "s"])("%j is no duration", (text) => {
  expect(() => parseDurationMs("--timeout", text)).toThrow("which is not a duration");
});

test("numbers", () => {
  expect(parsePositive("--cpus", "0.5")).toBe(0.5);
  expect(parseCount("--tail", "0")).toBe(0);
  for (const text of ["0", "-1", "x", "", " ", "Infinity"])
    expect(() => parsePositive("--cpus", text)).toThrow("above 0");
  expect(() => parseCount("--times", "0", 1)).toThrow('--times is "0", which is not a whole number of at least 1');
  for (const text of ["-1", "1.5", "x", "", "1e3"]) expect(() => parseCount("--tail", text)).toThrow("whole number");
});

test("elapsed time", () => {
  const at = (seconds: number) =>
    formatElapsed("2026-01-01T00:00:00.000Z", Date.parse("2026-01-01T00:00:00.000Z") + seconds * 1000);
  expect([-5, 0.4, 1, 59, 60, 3599, 3600, 86_400, 172_800, 1_209_600, 31_557_600, 94_672_800].map(at)).toEqual([
    "less than a second",
    "less than a second",
    "1 second",
    "59 seconds",
    "1 minute",
    "59 minutes",
    "1 hour",
    "24 hours",
    "2 days",
    "2 weeks",
    "12 months",
    "3 years",
  ]);
});
