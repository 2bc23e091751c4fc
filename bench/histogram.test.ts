import { expect, test } from "bun:test";
import fc from "fast-check";
import { bins, histogram } from "./histogram.ts";

const OPTIONS = { width: 10, bars: 5, unit: "ms" };

test("bars have round bounds and say how many", () => {
  expect(histogram([41, 42, 43, 44, 48, 52, 63], OPTIONS)).toEqual([
    "40-45 ms  ##########  4",
    "45-50 ms  ###         1",
    "50-55 ms  ###         1",
    "55-60 ms",
    "60-65 ms  ###         1",
  ]);
});

test("what lies beyond the limit is counted in the last bar", () => {
  expect(histogram([1, 1, 2, 3, 900], { ...OPTIONS, bars: 4 }, 3)).toEqual([
    "       1-2 ms  ##########  2",
    "       2-3 ms  #####       1",
    "3 ms and more  ##########  2",
  ]);
});

test("one value, fractions, and nothing", () => {
  expect(histogram([5], OPTIONS)).toEqual(["5-5.02 ms  ##########  1"]);
  const lines = histogram([0.31, 0.32, 0.35], OPTIONS);
  expect(lines.map((line) => line.trim().split(" ")[0])).toEqual([
    "0.31-0.32",
    "0.32-0.33",
    "0.33-0.34",
    "0.34-0.35",
    "0.35-0.36",
  ]);
  expect(histogram([], OPTIONS)).toEqual([]);
});

test("every sample is in a bin, and there are never too many bins", () => {
  const samples = fc.array(fc.double({ min: 0, max: 1e6, noNaN: true }), { minLength: 1, maxLength: 50 });
  fc.assert(
    fc.property(samples, fc.integer({ min: 1, max: 12 }), (values, bars) => {
      const counted = bins(values, bars);
      expect(counted.length).toBeLessThanOrEqual(bars);
      expect(counted.reduce((sum, bin) => sum + bin.count, 0)).toBe(values.length);
    }),
  );
});
