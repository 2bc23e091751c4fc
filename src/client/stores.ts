/** Templates: what VMs are cloned from. */
import type { BuildTemplateRequest, PoolRequest, Template, VerifyResult } from "../contract/api.ts";
import { finished, type OperationOptions } from "./operations.ts";
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

/** The calls for templates. */
export function templates(rest: Rest): Templates {
  const at = (template: string, verb = "") => `/v1/templates/${segment(template)}${verb}`;
  return {
    async build(json = {}, options = {}) {
      const { result } = await finished(rest, "/v1/templates", { json }, options);
      return rest.json("GET", at(result));
    },
    list: (options) => rest.json("GET", "/v1/templates", options),
    get: (template, options) => rest.json("GET", at(template), options),
    pool: (template, json, options) => rest.json("PUT", at(template, "/pool"), { ...options, json }),
    verify: (template, options) => rest.json("POST", at(template, "/verify"), options),
    remove: (template, { force, ...options } = {}) =>
      rest.empty("DELETE", at(template), { ...options, query: { force } }),
  };
}
