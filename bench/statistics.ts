/** Percentiles of samples. */

/** What a row of a report says of its samples. */
export interface Summary {
  n: number;
  p50: number;
  p95: number;
  p99: number;
  max: number;
}

/**
 * A percentile by nearest rank: the smallest sample that at least `percent` percent of all samples do not exceed. It is always a
 * sample that was measured; with fewer than 100 samples the 99th percentile is the largest of them.
 * @param sorted in ascending order, not empty.
 * @param percent above 0, at most 100.
 * @throws RangeError.
 */
export function percentile(sorted: readonly number[], percent: number): number {
  if (!(percent > 0 && percent <= 100)) throw new RangeError(`A percentile is above 0 and at most 100, not ${percent}`);
  const value = sorted[Math.ceil((percent / 100) * sorted.length) - 1];
  if (value === undefined) throw new RangeError("There is no percentile of no samples");
  return value;
}

/** Summary of samples in any order. @throws RangeError if there are none. */
export function summarize(samples: readonly number[]): Summary {
  const sorted = samples.toSorted((a, b) => a - b);
  const at = (percent: number) => percentile(sorted, percent);
  return { n: sorted.length, p50: at(50), p95: at(95), p99: at(99), max: at(100) };
}
