/** Standard error as a log: lines are written at once and whole, so that a crash loses none. */
import { writeSync } from "node:fs";

/** Writes a line. A log that nobody takes any more (full disk, closed pipe) must not stop the work: failures are ignored. */
export function writeErrorLine(line: string): void {
  try {
    writeSync(2, `${line}\n`);
  } catch {
    // Nowhere is left to say it.
  }
}

/** Whether standard error goes to systemd's journal, which takes a syslog level in `<N>` before each line. */
export function isJournal(): boolean {
  return process.env["JOURNAL_STREAM"] !== undefined;
}
