import { expect, test } from "bun:test";
import fc from "fast-check";
import { percentile, summarize } from "./statistics.ts";

const upTo = (n: number) => Array.from({ length: n }, (_, index) => index + 1);

test("the nearest rank is a sample, never between two", () => {
  expect(percentile([15, 20, 35, 40, 50], 30)).toBe(20);
  expect(percentile([15, 20, 35, 40, 50], 40)).toBe(20);
  expect(percentile([15, 20, 35, 40, 50], 50)).toBe(35);
  expect(percentile([15, 20, 35, 40, 50], 100)).toBe(50);
  expect(percentile([7], 1)).toBe(7);
});

test("of a hundred samples the 99th percentile is the second largest, of 500 the sixth", () => {
  expect(summarize(upTo(100))).toEqual({ n: 100, p50: 50, p95: 95, p99: 99, max: 100 });
  expect(summarize(upTo(500).reverse())).toEqual({ n: 500, p50: 250, p95: 475, p99: 495, max: 500 });
});

test("with few samples the tail is their maximum", () => {
  expect(summarize([3, 1, 2])).toEqual({ n: 3, p50: 2, p95: 3, p99: 3, max: 3 });
});

test("no samples have no percentile, and percents have bounds", () => {
  expect(() => summarize([])).toThrow(RangeError);
  expect(() => percentile([1], 0)).toThrow(RangeError);
  expect(() => percentile([1], 101)).toThrow(RangeError);
});

test("at least p percent of the samples do not exceed the percentile, and fewer do not exceed any smaller sample", () => {
  const samples = fc.array(fc.integer(), { minLength: 1, maxLength: 60 });
  fc.assert(
    fc.property(samples, fc.integer({ min: 1, max: 100 }), (values, percent) => {
      const sorted = values.toSorted((a, b) => a - b);
      const value = percentile(sorted, percent);
      const share = (limit: number) => (100 * sorted.filter((sample) => sample <= limit).length) / sorted.length;
      expect(share(value)).toBeGreaterThanOrEqual(percent);
      const smaller = sorted.filter((sample) => sample < value).at(-1);
      if (smaller !== undefined) expect(share(smaller)).toBeLessThan(percent);
    }),
  );
});
