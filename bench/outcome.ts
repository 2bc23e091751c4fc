/** What a scenario gives to whoever prints it. */
import type { PerformancePromise } from "./promises.ts";
import type { Told } from "./report.ts";
import type { Samples } from "./samples.ts";

/** A run that has come to its end. */
export interface Outcome<Report> {
  /** What `--json` prints. */
  report: Report;
  told: Told;
  samples: Samples;
  /** How often something could not be measured. */
  failures: number;
  /** What is promised of its figures. */
  promises: readonly PerformancePromise[];
}
