/** Operations: what may take longer than a second, with progress and cancellation. */
import type { Operation } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import { serverEvents } from "./events.ts";
import { errorOfProblem } from "./problem.ts";
import { type CallOptions, type RequestOptions, type Rest, segment } from "./rest.ts";

/** Options of calls that start an operation and wait for its end. */
export interface OperationOptions extends CallOptions {
  onProgress?: (step: string) => void;
  /** Called with each line that the programs of a build print. */
  onOutput?: (line: string) => void;
}

/** An operation that has made something. */
export type FinishedOperation = Operation & { result: string };

/** Longest that the end of a cancelled operation is waited for. */
const CANCEL_LIMIT_MS = 10_000;
/** Longest that the begin of an operation is waited for by who has given it up already. */
const ANSWER_LIMIT_MS = 1000;

/** What can be done with operations. */
export interface Operations {
  list(options?: CallOptions): Promise<Operation[]>;
  get(id: string, options?: CallOptions): Promise<Operation>;
  cancel(id: string, options?: CallOptions): Promise<void>;
  /** The operation now, then after each change, until it has ended. */
  watch(id: string, options?: Pick<OperationOptions, "signal" | "onOutput">): AsyncIterable<Operation>;
  /** Waits for the end. @returns the operation as it ended, and the id of what it made. @throws the operation's error, `cancelled`. */
  wait(id: string, options?: OperationOptions): Promise<FinishedOperation>;
}

/** The calls for operations. */
export function operations(rest: Rest): Operations {
  const at = (id: string, verb = "") => `/v1/operations/${segment(id)}${verb}`;
  async function* watch(id: string, { onOutput, ...options }: OperationOptions = {}): AsyncGenerator<Operation> {
    let next = 0;
    let again = true;
    // A reader that was too slow is told so at the end of its stream, and asks anew.
    while (again) {
      again = false;
      const response = await rest.send("GET", at(id, "/events"), options);
      for await (const { event, data } of serverEvents(response.chunks())) {
        if (event === "operation") yield JSON.parse(data) as Operation;
        again = event === "overflow";
        if (event !== "output") continue;
        const { line, number } = JSON.parse(data) as { line: string; number: number };
        if (number >= next) onOutput?.(line);
        next = Math.max(next, number + 1);
      }
    }
  }
  return {
    list: (options) => rest.json("GET", "/v1/operations", options),
    get: (id, options) => rest.json("GET", at(id), options),
    cancel: (id, options) => rest.empty("DELETE", at(id), options),
    watch,
    async wait(id, { onProgress, ...options } = {}) {
      for await (const operation of watch(id, options)) {
        onProgress?.(operation.step);
        if (operation.state !== "running") return resultOf(operation);
      }
      throw new MayflyError("connection_failed", `The daemon closed the progress of operation ${id} before its end`);
    },
  };
}

/** Starts an operation and waits for its end; an abort cancels it in the daemon as well, and is over when that has. @throws the operation's error, `cancelled`. */
export async function finished(
  rest: Rest,
  path: string,
  body: Pick<RequestOptions, "json" | "content">,
  { signal, ...options }: OperationOptions,
): Promise<FinishedOperation> {
  const call = signal === undefined ? {} : { signal };
  const operation = await begin(rest, path, { ...body, ...call });
  const calls = operations(rest);
  try {
    return await calls.wait(operation.id, { ...options, ...call });
  } catch (error) {
    if (!signal?.aborted) throw error;
    await calls.cancel(operation.id).catch(() => undefined);
    // What it had made is gone, and what it held is free, once it has ended.
    await calls.wait(operation.id, { signal: AbortSignal.timeout(CANCEL_LIMIT_MS) }).catch(() => undefined);
    // A body that is cut by an abort fails in the runtime's own words.
    throw new MayflyError("cancelled", `Cancelled: ${operation.kind}`, { cause: error });
  }
}

/**
 * Begins an operation. Whoever gives it up needs its id, to cancel it: the answer is waited for, if not for long. A body that is sent is cut at
 * once, and with that nothing begins.
 */
async function begin(rest: Rest, path: string, { signal, ...body }: RequestOptions): Promise<Operation> {
  if (signal === undefined) return rest.json("POST", path, body);
  if (signal.aborted || body.content !== undefined) return rest.json("POST", path, { ...body, signal });
  const later = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const abort = () => {
    timer = setTimeout(() => later.abort(signal.reason), ANSWER_LIMIT_MS);
  };
  signal.addEventListener("abort", abort, { once: true });
  try {
    return await rest.json("POST", path, { ...body, signal: later.signal });
  } finally {
    signal.removeEventListener("abort", abort);
    clearTimeout(timer);
  }
}

function resultOf(operation: Operation): FinishedOperation {
  const { id, state, result, error } = operation;
  if (error !== null) throw errorOfProblem(error);
  if (state === "done" && result !== null) return { ...operation, result };
  throw new MayflyError("cancelled", `Operation ${id} was cancelled`);
}
