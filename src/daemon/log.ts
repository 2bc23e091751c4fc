/** The daemon's log: one logfmt line per event on standard error, which journald or a file keeps. */
import { isJournal, writeErrorLine } from "../sys/standard-error.ts";

/** How grave an event is; the numbers are syslog's, which journald takes from a `<N>` before the line. */
const LEVELS = { error: 3, warn: 4, info: 6, debug: 7 } as const;
export type LogLevel = keyof typeof LEVELS;

/** Values of a log line. */
export type LogFields = Readonly<Record<string, string | number | boolean | undefined>>;

const settings = { least: LEVELS.info as number, journal: isJournal() };

/** Which events are written from now on: those as grave as `level`, or none. */
export function setLogLevel(level: LogLevel | "off"): void {
  settings.least = level === "off" ? 0 : LEVELS[level];
}

/** Writes one event. */
export function log(level: LogLevel, message: string, fields: LogFields = {}): void {
  if (LEVELS[level] > settings.least) return;
  const values = Object.entries(fields).flatMap(([key, value]) =>
    value === undefined ? [] : [`${key}=${quote(value)}`],
  );
  const line = [`level=${level}`, `msg=${quote(message)}`, ...values].join(" ");
  writeErrorLine(settings.journal ? `<${LEVELS[level]}>${line}` : `ts=${new Date().toISOString()} ${line}`);
}

/** Writes an error with its stack and causes, in one line. */
export function logError(message: string, error: unknown, fields: LogFields = {}): void {
  log("error", message, { ...fields, error: describe(error) });
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause = error.cause === undefined ? "" : `\ncaused by: ${describe(error.cause)}`;
  return `${error.stack ?? error.message}${cause}`;
}

/** A value as logfmt writes it: quoted and escaped when it has blanks, quotes, '=' or control characters. */
function quote(value: string | number | boolean): string {
  const text = String(value);
  return /^[^\s"=\\\p{Cc}]+$/u.test(text) ? text : JSON.stringify(text);
}
