/** Waiting for an operation of the daemon: its progress on the terminal, and Ctrl-C cancels it. */
import type { OperationOptions } from "../client/operations.ts";
import { printError } from "../sys/standard-io.ts";
import { oneLine } from "./output.ts";
import { progressLine } from "./progress.ts";
import type { GlobalOptions } from "./specification.ts";

/**
 * Does `work` with options that show progress and carry the cancellation.
 * @param output shows what programs print, on standard error; not with JSON, of which that is part.
 */
export async function withProgress<T>(
  global: GlobalOptions,
  work: (options: OperationOptions) => Promise<T>,
  output = false,
): Promise<T> {
  const line = progressLine();
  const printed = (text: string) => {
    line.clear();
    void printError(`${oneLine(text)}\n`);
  };
  const shown: OperationOptions = global.json ? {} : { onProgress: (step) => line.show(oneLine(step)) };
  if (output && !global.json) shown.onOutput = printed;
  const interrupt = new AbortController();
  const stop = () => interrupt.abort();
  process.on("SIGINT", stop);
  process.on("SIGTERM", stop);
  try {
    return await work({ signal: interrupt.signal, ...shown });
  } finally {
    line.clear();
    process.off("SIGINT", stop);
    process.off("SIGTERM", stop);
  }
}
