/** Commands that change what is set up: they show each step, and end when they are interrupted. */
import { showProgress } from "../setup/progress.ts";
import type { OnProgress } from "../setup/step.ts";
import { printError } from "../sys/standard-io.ts";
import { isTerminal, terminalSize } from "../sys/terminal.ts";

/** Does something with a display of its steps on standard error, and a signal that aborts when the process is interrupted. */
export async function withSetupProgress<T>(
  act: (progress: { onProgress: OnProgress; signal: AbortSignal }) => Promise<T>,
): Promise<T> {
  const interrupt = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => interrupt.abort());
  using display = showProgress({
    write: (text) => void printError(text),
    isTerminal: isTerminal(2),
    columns: terminalSize(2)?.columns ?? 80,
  });
  return await act({ onProgress: display.onProgress, signal: interrupt.signal });
}
