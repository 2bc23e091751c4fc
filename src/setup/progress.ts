/** Shows the course of a set-up: one live line per step on a terminal, plain lines elsewhere. */

import type { OnProgress, SetupProgress } from "./step.ts";

/** Where to write, and what it is. */
export interface ProgressOutput {
  write(text: string): void;
  isTerminal: boolean;
  /** Columns of the terminal. */
  columns: number;
}

/** A display of a set-up; disposing it ends the live line. */
export interface ProgressDisplay extends Disposable {
  onProgress: OnProgress;
}

const FRAMES = ["|", "/", "-", "\\"];
const REDRAW_MS = 120;
/** Without a terminal, a step that goes on says so from time to time. */
const REPORT_MS = 5000;

/** Makes a display. Steps that were done already are not shown one by one. */
export function showProgress(output: ProgressOutput): ProgressDisplay {
  return output.isTerminal ? liveDisplay(output) : plainDisplay(output);
}

function plainDisplay(output: ProgressOutput): ProgressDisplay {
  let reportedMs = 0;
  const onProgress = (event: SetupProgress) => {
    const nowMs = performance.now();
    if (event.kind === "started") {
      reportedMs = nowMs;
      output.write(`${event.step}: ${event.reason} ...\n`);
    } else if (event.kind === "finished") {
      output.write(`${event.step}: done in ${seconds(event.elapsedMs)}\n`);
    } else if (event.kind === "activity" && nowMs - reportedMs >= REPORT_MS) {
      reportedMs = nowMs;
      output.write(`${event.step}: ${activity(event)}\n`);
    }
  };
  return { onProgress, [Symbol.dispose]() {} };
}

function liveDisplay(output: ProgressOutput): ProgressDisplay {
  let step = "";
  let message = "";
  let startedMs = 0;
  let frame = 0;
  let timer: ReturnType<typeof setInterval> | undefined;
  const draw = () => {
    frame = (frame + 1) % FRAMES.length;
    const line = `${FRAMES[frame]} ${step} (${seconds(performance.now() - startedMs)}): ${message}`;
    output.write(`\r${line.slice(0, Math.max(20, output.columns - 1))}\x1b[K`);
  };
  const stop = () => {
    if (timer === undefined) return;
    clearInterval(timer);
    timer = undefined;
    output.write("\r\x1b[K");
  };
  const onProgress = (event: SetupProgress) => {
    if (event.kind === "started") {
      stop();
      [step, message, startedMs] = [event.step, event.reason, performance.now()];
      timer = setInterval(draw, REDRAW_MS);
      draw();
    } else if (event.kind === "activity") {
      message = activity(event);
    } else if (event.kind === "finished") {
      stop();
      output.write(`  ${event.step}: done in ${seconds(event.elapsedMs)}\n`);
    }
  };
  return { onProgress, [Symbol.dispose]: stop };
}

function activity(event: { message: string; fraction?: number }): string {
  return event.fraction === undefined ? event.message : `${event.message} (${Math.round(event.fraction * 100)} %)`;
}

function seconds(ms: number): string {
  return ms < 10_000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms / 1000)} s`;
}
