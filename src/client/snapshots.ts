/** Snapshots: states of VMs that were kept; and the tree of who came from whom. */
import type {
  ExportSnapshotRequest,
  ImportSnapshotRequest,
  PruneResult,
  PruneSnapshotsRequest,
  Snapshot,
  SnapshotDiff,
  TreeNode,
  VerifyResult,
  Vm,
} from "../contract/api.ts";
import { finished, type OperationOptions } from "./operations.ts";
import { type CallOptions, type Rest, segment } from "./rest.ts";

/**
 * What can be done with snapshots. `snapshot` is an id, a name, or an unambiguous beginning of an id. They are taken by `vms.checkpoint`; a VM with an
 * identity of its own is started from one by `vms.create({ snapshot })`. Paths are the daemon's host's.
 */
export interface Snapshots {
  list(options?: CallOptions): Promise<Snapshot[]>;
  get(snapshot: string, options?: CallOptions): Promise<Snapshot>;
  /** Removes one that nothing needs. */
  remove(snapshot: string, options?: CallOptions): Promise<void>;
  /** Removes those that nothing needs: unnamed ones, or `all`. */
  prune(request?: PruneSnapshotsRequest, options?: CallOptions): Promise<PruneResult>;
  /** Brings its VM back as it was, under its own id and name. */
  restore(snapshot: string, options?: CallOptions): Promise<Vm>;
  /** Compares all of it with its checksums. */
  verify(snapshot: string, options?: CallOptions): Promise<VerifyResult>;
  /** The pages that differ from those of `from`, another snapshot of the same base; without it from the base. With `files` files too. */
  diff(snapshot: string, options?: CallOptions & { from?: string; files?: boolean }): Promise<SnapshotDiff>;
  /** Writes it with all that another host needs into one file, and waits for it. */
  export(snapshot: string, request: ExportSnapshotRequest, options?: OperationOptions): Promise<Snapshot>;
  /** Takes in what `export` has written, and waits for it. */
  import(request: ImportSnapshotRequest, options?: OperationOptions): Promise<Snapshot>;
  /** Makes a template of it, whose clones share all of its pages, and waits for it. */
  promote(snapshot: string, options?: OperationOptions): Promise<Snapshot>;
  /** Templates, snapshots and VMs, parents before children. */
  tree(options?: CallOptions): Promise<TreeNode[]>;
}

/** The calls for snapshots. */
export function snapshots(rest: Rest): Snapshots {
  const at = (snapshot: string, verb = "") => `/v1/snapshots/${segment(snapshot)}${verb}`;
  const get = (snapshot: string, options?: CallOptions) => rest.json<Snapshot>("GET", at(snapshot), options);
  const made = async (path: string, json: unknown, options: OperationOptions) => {
    const body = json === undefined ? {} : { json };
    return get((await finished(rest, path, body, options)).result);
  };
  return {
    list: (options) => rest.json("GET", "/v1/snapshots", options),
    get,
    remove: (snapshot, options) => rest.empty("DELETE", at(snapshot), options),
    prune: (json = {}, options) => rest.json("POST", "/v1/snapshots/prune", { ...options, json }),
    restore: (snapshot, options) => rest.json("POST", at(snapshot, "/restore"), options),
    verify: (snapshot, options) => rest.json("POST", at(snapshot, "/verify"), options),
    diff: (snapshot, { from, files, ...options } = {}) =>
      rest.json("GET", at(snapshot, "/diff"), {
        ...options,
        query: { from, files: files === true ? "true" : undefined },
      }),
    export: (snapshot, json, options = {}) => made(at(snapshot, "/export"), json, options),
    import: (json, options = {}) => made("/v1/snapshots/import", json, options),
    promote: (snapshot, options = {}) => made(at(snapshot, "/promote"), undefined, options),
    tree: (options) => rest.json("GET", "/v1/tree", options),
  };
}
