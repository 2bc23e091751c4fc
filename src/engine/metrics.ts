/** Counters and histograms of the engine. */
import type { CaptureTimes, ClonePath } from "../contract/api.ts";
import type { HistogramSnapshot, SampleSnapshot } from "./interface.ts";
import { CAPTURE_STAGES, type CaptureStage, CLONE_STAGES, type CloneStage } from "./stages.ts";

/** Upper bounds of buckets, in seconds: around the promises of docs/PERFORMANCE.md. */
const BUCKETS_S = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.035, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 2.5, 10];

class Histogram {
  readonly #counts = new Array<number>(BUCKETS_S.length).fill(0);
  #sum = 0;
  #count = 0;

  observe(seconds: number): void {
    this.#sum += seconds;
    this.#count += 1;
    const index = BUCKETS_S.findIndex((bound) => seconds <= bound);
    if (index >= 0) this.#counts[index] = (this.#counts[index] ?? 0) + 1;
  }

  snapshot(name: string, help: string, labels: Record<string, string>): HistogramSnapshot {
    let cumulative = 0;
    const buckets = BUCKETS_S.map((le, index) => {
      cumulative += this.#counts[index] ?? 0;
      return { le, count: cumulative };
    });
    return { name, help, labels, buckets, sum: this.#sum, count: this.#count };
  }
}

/** For what a VM's state was taken. */
export type CaptureOperation = "fork" | "checkpoint" | "suspend";

/** The engine's own measurements. */
export class Metrics {
  readonly #ready = new Map<ClonePath, Histogram>();
  readonly #stages = new Map<string, Histogram>();
  readonly #stopped = new Map<CaptureOperation, Histogram>();
  readonly #captures = new Map<string, Histogram>();
  readonly #failures = new Map<string, number>();
  readonly #refusals = new Map<string, number>();
  #queued = 0;
  readonly #restarts = new Map<string, number>();
  readonly #checks = new Map<string, number>();
  readonly #idle = new Map<string, number>();
  readonly #continued = new Histogram();

  /** A clone became ready. */
  cloned(path: ClonePath, readyMs: number, stages: Partial<Record<CloneStage, number>>): void {
    getOrMake(this.#ready, path).observe(readyMs / 1000);
    for (const stage of CLONE_STAGES) {
      const ms = stages[stage];
      if (ms !== undefined) getOrMake(this.#stages, `${path} ${stage}`).observe(ms / 1000);
    }
  }

  /** A VM's state was taken. */
  captured(operation: CaptureOperation, times: CaptureTimes, stages: Partial<Record<CaptureStage, number>>): void {
    getOrMake(this.#stopped, operation).observe(times.stoppedMs / 1000);
    for (const stage of CAPTURE_STAGES) {
      const ms = stages[stage];
      if (ms !== undefined) getOrMake(this.#captures, `${operation} ${stage}`).observe(ms / 1000);
    }
  }

  /** A VM could not be started. */
  failed(code: string): void {
    count(this.#failures, code);
  }

  /** A start has to wait for memory. */
  queued(): void {
    this.#queued += 1;
  }

  /** A start was not let in. */
  refused(code: string): void {
    count(this.#refusals, code);
  }

  /** A VM is started again, since its main process has ended or its QEMU is gone. */
  restarted(cause: "exit" | "failure"): void {
    count(this.#restarts, cause);
  }

  /** A health check has ended. */
  checked(result: "passed" | "failed" | "not_done"): void {
    count(this.#checks, result);
  }

  /** Something was done with a VM that is idle. */
  idled(step: "pause" | "refresh" | "suspend"): void {
    count(this.#idle, step);
  }

  /** A VM that was paused is wanted: it has answered after so long. */
  continued(ms: number): void {
    this.#continued.observe(ms / 1000);
  }

  histograms(): HistogramSnapshot[] {
    const continued = this.#continued.snapshot(
      "mayfly_continue_seconds",
      "First byte for a paused VM to its guest's first answer.",
      {},
    );
    const ready = [...this.#ready].map(([path, histogram]) =>
      histogram.snapshot("mayfly_clone_ready_seconds", "Request to ready, identity applied.", { path }),
    );
    const stages = [...this.#stages].map(([key, histogram]) => {
      const [path = "", stage = ""] = key.split(" ");
      return histogram.snapshot("mayfly_clone_stage_seconds", "A stage of the clone path.", { path, stage });
    });
    const stopped = [...this.#stopped].map(([operation, histogram]) =>
      histogram.snapshot("mayfly_capture_stopped_seconds", "Request to freeze to thaw acknowledged.", { operation }),
    );
    const captures = [...this.#captures].map(([key, histogram]) => {
      const [operation = "", stage = ""] = key.split(" ");
      return histogram.snapshot("mayfly_capture_stage_seconds", "A stage of taking a VM's state.", {
        operation,
        stage,
      });
    });
    return [...ready, ...stages, ...stopped, ...captures, continued];
  }

  samples(): SampleSnapshot[] {
    const counters = (name: string, help: string, label: string, values: ReadonlyMap<string, number>) =>
      [...values].map(([key, value]) => ({ name, help, type: "counter" as const, labels: { [label]: key }, value }));
    return [
      ...counters(
        "mayfly_clone_failures_total",
        "VMs that could not be started, by error code.",
        "code",
        this.#failures,
      ),
      ...counters("mayfly_idle_steps_total", "What was done with idle VMs.", "step", this.#idle),
      ...counters("mayfly_admissions_refused_total", "Starts that were not let in.", "code", this.#refusals),
      {
        name: "mayfly_admissions_queued_total",
        help: "Starts that had to wait for memory.",
        type: "counter",
        labels: {},
        value: this.#queued,
      },
      ...counters("mayfly_restarts_total", "VMs started again by their policy.", "cause", this.#restarts),
      ...counters("mayfly_health_checks_total", "Health checks that have ended.", "result", this.#checks),
    ];
  }
}

function count(counts: Map<string, number>, key: string): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}

function getOrMake<K>(map: Map<K, Histogram>, key: K): Histogram {
  const known = map.get(key);
  if (known !== undefined) return known;
  const made = new Histogram();
  map.set(key, made);
  return made;
}
