/** Samples of a run, the rows made of them, and the file that keeps them as they were measured. */
import { type Summary, summarize } from "./statistics.ts";

/** What is measured, in the order of reports: ways to start a VM, other runtimes, and what Mayfly needs around its VMs. */
export const SUBJECTS = [
  "clone",
  "clone-copy",
  "clone-pool",
  "clone-warm",
  "boot",
  "runc",
  "crun",
  "podman",
  "podman-host",
  "run",
  "warm",
  "warm-copy",
  "warm-cold",
  "base-echo",
  "image-echo",
  "base-echo-cold",
  "image-echo-cold",
  "forwarded",
  "slirp",
  "fork",
  "checkpoint",
  "suspend",
  "resume",
  "savevm",
  "loadvm",
  "migrate-file",
  "restore-file",
  "mayfly",
  "mayfly-copies",
  "mayfly-paused",
  "mayfly-merge",
  "mayfly-suspended",
  "containerd",
  "daemon",
  "template",
] as const;
export type Subject = (typeof SUBJECTS)[number];

/** Units of values: milliseconds, bytes, a number of things, things a second, bytes a second, a quotient. */
export type Unit = "ms" | "bytes" | "count" | "per-second" | "bytes-per-second" | "ratio";

/** One measured value. */
export interface Sample {
  subject: Subject;
  metric: string;
  unit: Unit;
  value: number;
  /** When it was taken, in milliseconds since the run began. */
  atMs: number;
}

/** All samples of a subject and metric. */
export interface Row extends Summary {
  subject: Subject;
  metric: string;
  unit: Unit;
}

/** Digits kept behind the point. */
const DIGITS: Readonly<Record<Unit, number>> = {
  ms: 3,
  bytes: 0,
  count: 0,
  "per-second": 2,
  "bytes-per-second": 0,
  ratio: 3,
};

/** Collects the samples of a run. */
export class Samples {
  readonly #startedMs = performance.now();
  readonly #samples: Sample[] = [];

  add(subject: Subject, metric: string, unit: Unit, value: number): void {
    const atMs = Math.round(performance.now() - this.#startedMs);
    this.#samples.push({ subject, metric, unit, value: Number(value.toFixed(DIGITS[unit])), atMs });
  }

  /** Values of a subject and metric in the order in which they were measured. */
  values(subject: Subject, metric: string): number[] {
    return this.#samples.filter((s) => s.subject === subject && s.metric === metric).map((s) => s.value);
  }

  /** One row for each subject and metric: subjects in their order, metrics in that of their first samples. */
  rows(): Row[] {
    const groups = Map.groupBy(this.#samples, (sample) => `${sample.subject} ${sample.metric}`);
    const rows = [...groups.values()].flatMap((group) => {
      const [first] = group;
      if (first === undefined) return [];
      const { subject, metric, unit } = first;
      return [{ subject, metric, unit, ...summarize(group.map((sample) => sample.value)) }];
    });
    return rows.toSorted((a, b) => SUBJECTS.indexOf(a.subject) - SUBJECTS.indexOf(b.subject));
  }

  /** The run as JSON lines: first what `head` says of it, then one line for each sample. */
  toJsonLines(head: Readonly<Record<string, unknown>>): string {
    return [head, ...this.#samples].map((line) => `${JSON.stringify(line)}\n`).join("");
  }
}
