/** Volumes: disks that outlive the VMs that mount them. */
import type { CreateVolumeRequest, PruneResult, Volume } from "../contract/api.ts";
import { type CallOptions, type Rest, segment } from "./rest.ts";

/** What can be done with volumes. They go by their names. */
export interface Volumes {
  create(request?: CreateVolumeRequest, options?: CallOptions): Promise<Volume>;
  list(options?: CallOptions): Promise<Volume[]>;
  get(name: string, options?: CallOptions): Promise<Volume>;
  /** Makes a volume that no VM has larger. */
  resize(name: string, sizeBytes: number, options?: CallOptions): Promise<Volume>;
  /** Removes a volume that no VM has, with all that is in it. */
  remove(name: string, options?: CallOptions): Promise<void>;
  /** Removes the volumes that no VM has: those that nobody named, or `all`. */
  prune(options?: CallOptions & { all?: boolean }): Promise<PruneResult>;
}

/** The calls for volumes. */
export function volumes(rest: Rest): Volumes {
  const at = (name: string, verb = "") => `/v1/volumes/${segment(name)}${verb}`;
  return {
    create: (request = {}, options) => rest.json("POST", "/v1/volumes", { ...options, json: request }),
    list: (options) => rest.json("GET", "/v1/volumes", options),
    get: (name, options) => rest.json("GET", at(name), options),
    resize: (name, sizeBytes, options) => rest.json("POST", at(name, "/resize"), { ...options, json: { sizeBytes } }),
    remove: (name, options) => rest.empty("DELETE", at(name), options),
    prune: ({ all, ...options } = {}) => rest.json("POST", "/v1/volumes/prune", { ...options, query: { all } }),
  };
}
