/** The stages of the clone path: one name each, used in errors, metrics, benchmarks and reports. */
import { nowMs } from "../sys/deadline.ts";

/** In the order in which they happen. */
export const CLONE_STAGES = ["plan", "spawn", "load", "agent", "identity"] as const;

/** `plan`: request to plan, template checked. `spawn`: QEMU spawned. `load`: device state written (or `cont` of a warm one).
 * `agent`: the agent has answered the hello. `identity`: identity applied, workload thawed: ready. */
export type CloneStage = (typeof CLONE_STAGES)[number];

/** The stages of taking a VM's state, in the order in which they happen. */
export const CAPTURE_STAGES = ["freeze", "save", "pages", "thaw", "write"] as const;

/** `freeze`: the workload is frozen. `save`: vCPUs stopped, device state saved. `pages`: pages copied, disks too. `thaw`: vCPUs run, and the
 * workload. `write`: reduced against the base, written and synced. */
export type CaptureStage = (typeof CAPTURE_STAGES)[number];

/** Measures the stages of one clone, or of what else has stages. */
export class StageClock<S extends string = CloneStage> {
  readonly startedMs: number;
  #lastMs: number;
  readonly stages: Partial<Record<S, number>> = {};

  constructor(startedMs = nowMs()) {
    this.startedMs = startedMs;
    this.#lastMs = startedMs;
  }

  /** Ends a stage: its milliseconds are those since the last one ended. */
  end(stage: S): void {
    const now = nowMs();
    this.stages[stage] = round(now - this.#lastMs);
    this.#lastMs = now;
  }

  /** Milliseconds since the start. */
  get elapsedMs(): number {
    return round(nowMs() - this.startedMs);
  }
}

function round(ms: number): number {
  return Math.round(ms * 1000) / 1000;
}
