/** Sizes, durations and other values as people write and read them. */
import { MayflyError } from "../contract/errors.ts";

const UNITS: Readonly<Record<string, number>> = { b: 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3, t: 1024 ** 4 };

/** Bytes of a size such as `128m`, `1g`, `1.5GiB`, `4096`. Units are powers of 1024, as docker has them. @throws `invalid_argument`. */
export function parseBytes(option: string, text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([bkmgt])?(?:i?b)?$/i.exec(text.trim());
  const bytes = Math.round(Number(match?.[1]) * (UNITS[match?.[2]?.toLowerCase() ?? "b"] ?? 1));
  if (match === null || !Number.isSafeInteger(bytes) || bytes < 1) {
    throw invalid(option, text, "a size such as 128m or 1g");
  }
  return bytes;
}

/** Bytes for a person, e.g. `38.2MiB`. */
export function formatBytes(bytes: number): string {
  const names = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < names.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : Number(value.toPrecision(3))}${names[unit]}`;
}

const DURATION_UNITS_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** Milliseconds of a duration such as `30`, `30s`, `500ms`, `1h30m`; a bare number is seconds. @throws `invalid_argument`. */
export function parseDurationMs(option: string, text: string): number {
  const trimmed = text.trim();
  if (/^\d+(\.\d+)?$/.test(trimmed)) return Math.round(Number(trimmed) * 1000);
  const parts = [...trimmed.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g)];
  if (parts.length === 0 || parts.map(([part]) => part).join("") !== trimmed) {
    throw invalid(option, text, "a duration such as 10, 500ms or 1h30m");
  }
  return Math.round(
    parts.reduce((sum, [, number, unit]) => sum + Number(number) * (DURATION_UNITS_MS[unit ?? "s"] ?? 0), 0),
  );
}

/** A number above 0. @throws `invalid_argument`. */
export function parsePositive(option: string, text: string): number {
  const value = Number(text);
  if (text.trim() === "" || !Number.isFinite(value) || value <= 0) throw invalid(option, text, "a number above 0");
  return value;
}

/** A whole number of at least `least`. @throws `invalid_argument`. */
export function parseCount(option: string, text: string, least = 0): number {
  const what = least === 0 ? "a whole number" : `a whole number of at least ${least}`;
  if (!/^\d{1,15}$/.test(text) || Number(text) < least) throw invalid(option, text, what);
  return Number(text);
}

/** Time since a moment, as docker words it, e.g. `3 minutes`. */
export function formatElapsed(sinceIso: string, nowMs: number): string {
  const seconds = Math.max(0, (nowMs - Date.parse(sinceIso)) / 1000);
  const units: [string, number, number][] = [
    ["second", 1, 60],
    ["minute", 60, 60],
    ["hour", 3600, 48],
    ["day", 86_400, 14],
    ["week", 604_800, 8],
    ["month", 2_629_800, 24],
    ["year", 31_557_600, Number.POSITIVE_INFINITY],
  ];
  if (seconds < 1) return "less than a second";
  const [name, length] = units.find(([, unit, limit]) => seconds < unit * limit) ?? ["second", 1];
  const count = Math.floor(seconds / length);
  return `${count} ${name}${count === 1 ? "" : "s"}`;
}

function invalid(option: string, text: string, wanted: string): MayflyError {
  return new MayflyError("invalid_argument", `${option} is ${JSON.stringify(text)}, which is not ${wanted}`);
}
