/** Templates and images: what VMs are made from. */
import type {
  BuildTemplateRequest,
  Image,
  ImportImageRequest,
  Operation,
  PoolRequest,
  Template,
  VerifyResult,
} from "../contract/api.ts";
import { type OperationOptions, operations } from "./operations.ts";
import { type CallOptions, type Rest, segment } from "./rest.ts";

/** What can be done with templates. `template` is an id, a name, or an unambiguous beginning of an id. */
export interface Templates {
  /** Builds a template of a size or of an application unless it is there, and waits for it. */
  build(request?: BuildTemplateRequest, options?: OperationOptions): Promise<Template>;
  list(options?: CallOptions): Promise<Template[]>;
  get(template: string, options?: CallOptions): Promise<Template>;
  /** Has a template keep so many clones prepared, from now on. */
  pool(template: string, sizes: PoolRequest, options?: CallOptions): Promise<Template>;
  /** Checks a template's files against its manifest. */
  verify(template: string, options?: CallOptions): Promise<VerifyResult>;
  remove(template: string, options?: CallOptions & { force?: boolean }): Promise<void>;
}

/** What can be done with images. `image` is an id, a name, or an unambiguous beginning of an id. */
export interface Images {
  /** Imports a root file system from a file on the daemon's host, and waits for it. */
  import(request: ImportImageRequest, options?: OperationOptions): Promise<Image>;
  list(options?: CallOptions): Promise<Image[]>;
  get(image: string, options?: CallOptions): Promise<Image>;
  remove(image: string, options?: CallOptions): Promise<void>;
}

/** The calls for templates. */
export function templates(rest: Rest): Templates {
  const at = (template: string, verb = "") => `/v1/templates/${segment(template)}${verb}`;
  return {
    build: (request = {}, options = {}) => startAndGet(rest, "/v1/templates", request, options),
    list: (options) => rest.json("GET", "/v1/templates", options),
    get: (template, options) => rest.json("GET", at(template), options),
    pool: (template, json, options) => rest.json("PUT", at(template, "/pool"), { ...options, json }),
    verify: (template, options) => rest.json("POST", at(template, "/verify"), options),
    remove: (template, { force, ...options } = {}) =>
      rest.empty("DELETE", at(template), { ...options, query: { force } }),
  };
}

/** The calls for images. */
export function images(rest: Rest): Images {
  const at = (image: string) => `/v1/images/${segment(image)}`;
  return {
    import: (request, options = {}) => startAndGet(rest, "/v1/images", request, options),
    list: (options) => rest.json("GET", "/v1/images", options),
    get: (image, options) => rest.json("GET", at(image), options),
    remove: (image, options) => rest.empty("DELETE", at(image), options),
  };
}

/** Starts an operation, waits for it (an abort cancels it in the daemon as well), and gets what it made. */
async function startAndGet<T>(rest: Rest, path: string, json: unknown, options: OperationOptions): Promise<T> {
  const { onProgress, signal } = options;
  const call = signal === undefined ? {} : { signal };
  const operation = await rest.json<Operation>("POST", path, { json, ...call });
  const calls = operations(rest);
  try {
    const id = await calls.wait(operation.id, onProgress === undefined ? call : { onProgress, ...call });
    return await rest.json<T>("GET", `${path}/${segment(id)}`, call);
  } catch (error) {
    if (signal?.aborted) await calls.cancel(operation.id).catch(() => undefined);
    throw error;
  }
}
