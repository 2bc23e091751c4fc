/** The stages of the clone path: one name each, used in errors, metrics, benchmarks and reports. */
import { nowMs } from "../sys/deadline.ts";

/** In the order in which they happen. */
export const CLONE_STAGES = ["plan", "spawn", "load", "agent", "identity"] as const;

/** `plan`: request to plan, template checked. `spawn`: QEMU spawned. `load`: device state written (or `cont` of a warm one).
 * `agent`: the agent has answered the hello. `identity`: identity applied, workload thawed: ready. */
export type CloneStage = (typeof CLONE_STAGES)[number];

/** Measures the stages of one clone. */
export class StageClock {
  readonly startedMs: number;
  #lastMs: number;
  readonly stages: Partial<Record<CloneStage, number>> = {};

  constructor(startedMs = nowMs()) {
    this.startedMs = startedMs;
    this.#lastMs = startedMs;
  }

  /** Ends a stage: its milliseconds are those since the last one ended. */
  end(stage: CloneStage): void {
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
