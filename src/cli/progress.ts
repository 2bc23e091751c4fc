/** One line on the terminal that says what is going on, and goes away. */
import { printError } from "../sys/standard-io.ts";
import { isTerminal } from "../sys/terminal.ts";

/** A line of progress; on anything but a terminal nothing is shown. */
export interface ProgressLine {
  show(step: string): void;
  /** Removes it, if it is there. */
  clear(): void;
}

/** Makes a progress line on standard error. */
export function progressLine(): ProgressLine {
  const visible = isTerminal(2);
  let shown = false;
  return {
    show(step) {
      if (!visible) return;
      shown = true;
      void printError(`\r\x1b[Kmayfly: ${step} ...`);
    },
    clear() {
      if (shown) void printError("\r\x1b[K");
      shown = false;
    },
  };
}
