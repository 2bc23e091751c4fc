/** Operations: what may take longer than a second, with progress and cancellation. */
import type { Operation } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import { serverEvents } from "./events.ts";
import { errorOfProblem } from "./problem.ts";
import { type CallOptions, type Rest, segment } from "./rest.ts";

/** Options of calls that start an operation and wait for its end. */
export interface OperationOptions extends CallOptions {
  onProgress?: (step: string) => void;
}

/** What can be done with operations. */
export interface Operations {
  list(options?: CallOptions): Promise<Operation[]>;
  get(id: string, options?: CallOptions): Promise<Operation>;
  cancel(id: string, options?: CallOptions): Promise<void>;
  /** The operation now, then after each change, until it has ended. */
  watch(id: string, options?: CallOptions): AsyncIterable<Operation>;
  /** Waits for the end. @returns the id of what it made. @throws the operation's error, `cancelled`. */
  wait(id: string, options?: OperationOptions): Promise<string>;
}

/** The calls for operations. */
export function operations(rest: Rest): Operations {
  const at = (id: string, verb = "") => `/v1/operations/${segment(id)}${verb}`;
  async function* watch(id: string, options: CallOptions = {}): AsyncGenerator<Operation> {
    const response = await rest.send("GET", at(id, "/events"), options);
    for await (const { data } of serverEvents(response.chunks())) yield JSON.parse(data) as Operation;
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

function resultOf({ id, state, result, error }: Operation): string {
  if (error !== null) throw errorOfProblem(error);
  if (state === "done" && result !== null) return result;
  throw new MayflyError("cancelled", `Operation ${id} was cancelled`);
}
