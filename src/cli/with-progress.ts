/** Waiting for an operation of the daemon: its progress on the terminal, and Ctrl-C cancels it. */
import type { OperationOptions } from "../client/operations.ts";
import { MayflyError } from "../contract/errors.ts";
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
  let hasPrinted = false;
  const printed = (text: string) => {
    hasPrinted = true;
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
  } catch (error) {
    throw hasPrinted ? withoutTail(error) : error;
  } finally {
    line.clear();
    process.off("SIGINT", stop);
    process.off("SIGTERM", stop);
  }
}

/** An error without the last lines of a program whose output was printed as it came. */
function withoutTail(error: unknown): unknown {
  if (!(error instanceof MayflyError) || error.details.stderrTail === undefined) return error;
  const { stderrTail: _, ...details } = error.details;
  return new MayflyError(error.code, error.message, { details, cause: error });
}
