/** Small histograms made of text. */

/** What a histogram looks like. */
export interface HistogramOptions {
  /** Most characters of a bar. */
  width: number;
  /** Most bars. */
  bars: number;
  /** Written behind the bounds, e.g. `ms`. */
  unit: string;
}

/** A bar: samples from `from` on, below `to`. */
export interface Bin {
  from: number;
  to: number;
  count: number;
}

/** Widths that people read easily, times any power of ten. */
const STEPS = [1, 2, 5] as const;

/**
 * Counts samples in bins of equal width: the narrowest of 1, 2 or 5 times a power of ten of which `bars` are enough. The last bin
 * takes what lies beyond when `limit` is given, so that one straggler does not flatten all the rest.
 * @param samples not negative, at least one.
 */
export function bins(samples: readonly number[], bars: number, limit = Number.POSITIVE_INFINITY): Bin[] {
  const low = Math.min(...samples);
  const high = Math.min(Math.max(...samples), limit);
  const step = stepFor(low, high, bars);
  const first = Math.floor(low / step);
  const count = Math.max(1, Math.floor(high / step) - first + 1);
  const result: Bin[] = Array.from({ length: count }, (_, index) => ({
    from: (first + index) * step,
    to: (first + index + 1) * step,
    count: 0,
  }));
  for (const sample of samples) {
    const bin = result[Math.min(Math.floor(sample / step) - first, count - 1)];
    if (bin !== undefined) bin.count += 1;
  }
  const last = result.at(-1);
  if (last !== undefined && samples.some((sample) => sample >= last.to)) last.to = Number.POSITIVE_INFINITY;
  return result;
}

function stepFor(low: number, high: number, bars: number): number {
  const span = Math.max(high - low, high / 50, 1e-9);
  for (let power = Math.floor(Math.log10(span / bars)); ; power += 1) {
    for (const digit of STEPS) {
      const step = power < 0 ? digit / 10 ** -power : digit * 10 ** power;
      if (step * bars >= span && Math.floor(high / step) - Math.floor(low / step) < bars) return step;
    }
  }
}

/** Lines of a histogram, one for each bin: bounds, a bar, a count. */
export function histogram(samples: readonly number[], options: HistogramOptions, limit?: number): string[] {
  if (samples.length === 0) return [];
  const counted = bins(samples, options.bars, limit);
  const most = Math.max(...counted.map((bin) => bin.count));
  const label = ({ from, to }: Bin) =>
    Number.isFinite(to) ? `${short(from)}-${short(to)} ${options.unit}` : `${short(from)} ${options.unit} and more`;
  const labelWidth = Math.max(...counted.map((bin) => label(bin).length));
  return counted.map((bin) => {
    const bar = "#".repeat(Math.ceil((bin.count / most) * options.width));
    return `${label(bin).padStart(labelWidth)}  ${bar.padEnd(options.width)}  ${bin.count || ""}`.trimEnd();
  });
}

/** A bound without the noise of binary fractions. */
function short(value: number): string {
  return String(Number(value.toPrecision(6)));
}
