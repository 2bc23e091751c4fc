/** Waiting for an operation of the daemon: its progress on the terminal, and Ctrl-C cancels it. */
import type { OperationOptions } from "../client/operations.ts";
import { progressLine } from "./progress.ts";
import type { GlobalOptions } from "./specification.ts";

/** Does `work` with options that show progress and carry the cancellation. */
export async function withProgress<T>(
  global: GlobalOptions,
  work: (options: OperationOptions) => Promise<T>,
): Promise<T> {
  const line = progressLine();
  const interrupt = new AbortController();
  const stop = () => interrupt.abort();
  process.on("SIGINT", stop);
  process.on("SIGTERM", stop);
  try {
    return await work({ signal: interrupt.signal, ...(global.json ? {} : { onProgress: (step) => line.show(step) }) });
  } finally {
    line.clear();
    process.off("SIGINT", stop);
    process.off("SIGTERM", stop);
  }
}
