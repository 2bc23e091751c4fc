/** What a set-up consists of: named steps, each of which tells whether it is needed and reports what it is doing. */

/** One thing that happened during set-up, for a display. */
export type SetupProgress =
  | { kind: "skipped"; step: string }
  | { kind: "started"; step: string; reason: string }
  | { kind: "activity"; step: string; message: string; fraction?: number }
  | { kind: "finished"; step: string; elapsedMs: number };

/** Receives what happens during set-up. */
export type OnProgress = (event: SetupProgress) => void;

/** What a running step may use. */
export interface StepContext {
  /** Says what is being done now; `fraction` from 0 to 1 where it is known. */
  report(message: string, fraction?: number): void;
  /** Aborting it stops the step; what is there then is either complete or not visible. */
  signal: AbortSignal | undefined;
}

/** A step of the set-up. */
export interface Step {
  name: string;
  /** Why the step has to run, or `undefined` if it is done. Takes milliseconds. */
  pending(): Promise<string | undefined>;
  /** Does it; may be repeated after an interruption at any moment. */
  run(context: StepContext): Promise<void>;
}
