/** `/v1/snapshots`: states of VMs that were kept; forks of running ones; and the tree of who came from whom. */
import { z } from "zod";
import {
  CheckpointRequest,
  ExportSnapshotRequest,
  ForkRequest,
  ForkResult,
  ImportSnapshotRequest,
  Operation,
  PruneResult,
  PruneSnapshotsRequest,
  Snapshot,
  SnapshotDiff,
  TreeNode,
  VerifyResult,
  Vm,
} from "../../contract/api.ts";
import { CREATE_LIMIT_MS, VERIFY_LIMIT_MS } from "../limits.ts";
import { flag } from "../query.ts";
import { emptyRoute, jsonRoute, type Route } from "../route.ts";

const tag = "snapshots";
const started = { status: 202, description: "The operation that does it.", schema: Operation };
const operationLocation = (operation: Operation) => `/v1/operations/${operation.id}`;
const onceOnly = (what: string) => ({
  "Idempotency-Key": `Asking again with the same key and body gives the same ${what}; with another body, idempotency_conflict.`,
});

/** What is done to VMs. */
const ofVms: readonly Route[] = [
  jsonRoute({
    method: "POST",
    path: "/v1/vms/{id}/checkpoint",
    tag,
    summary: "Write a running VM's state into a snapshot; with `stop`, suspend the VM into it.",
    headers: onceOnly("snapshot"),
    body: CheckpointRequest,
    bodyKind: "optional-json",
    answer: { status: 201, description: "The snapshot; all of it is on the disk.", schema: Snapshot },
    location: ({ id }) => `/v1/snapshots/${id}`,
    handle({ engine, params, body, request, checkpoints, deadline, unattended }) {
      const key = request.headers.get("idempotency-key");
      const limit = key === null ? deadline(CREATE_LIMIT_MS) : unattended(CREATE_LIMIT_MS);
      const asked = { ...body, vm: params.id };
      return checkpoints.once(key, asked, () => engine.snapshots.checkpoint(params.id, body, limit));
    },
  }),
  jsonRoute({
    method: "POST",
    path: "/v1/vms/{id}/resume",
    tag,
    summary: "Bring a suspended VM back; one that runs stays as it is.",
    answer: { status: 200, description: "The running VM.", schema: Vm },
    handle: ({ engine, params, unattended }) => engine.snapshots.resume(params.id, unattended(CREATE_LIMIT_MS)),
  }),
  jsonRoute({
    method: "POST",
    path: "/v1/vms/{id}/fork",
    tag,
    summary: "Start VMs from a running one, which goes on. All of them are ready, or none is there.",
    headers: onceOnly("VMs"),
    body: ForkRequest,
    bodyKind: "optional-json",
    answer: { status: 201, description: "The new VMs, and how long the first one stood still.", schema: ForkResult },
    handle({ engine, params, body, request, forks, deadline, unattended }) {
      const key = request.headers.get("idempotency-key");
      const limit = key === null ? deadline(CREATE_LIMIT_MS) : unattended(CREATE_LIMIT_MS);
      return forks.once(key, { ...body, vm: params.id }, () => engine.snapshots.fork(params.id, body, limit));
    },
  }),
];

/** What is done to snapshots at once. */
const ofSnapshots: readonly Route[] = [
  jsonRoute({
    method: "GET",
    path: "/v1/snapshots",
    tag,
    summary: "All snapshots.",
    answer: { status: 200, description: "The snapshots.", schema: z.array(Snapshot) },
    handle: ({ engine }) => engine.snapshots.list(),
  }),
  jsonRoute({
    method: "POST",
    path: "/v1/snapshots/prune",
    tag,
    summary: "Remove the snapshots that nothing was started from and that no VM waits for: unnamed ones, or all.",
    body: PruneSnapshotsRequest,
    bodyKind: "optional-json",
    answer: { status: 200, description: "What was removed.", schema: PruneResult },
    handle: ({ engine, body }) => engine.snapshots.prune(body),
  }),
  jsonRoute({
    method: "GET",
    path: "/v1/snapshots/{id}",
    tag,
    summary: "One snapshot, by id, name, or unambiguous beginning of the id.",
    answer: { status: 200, description: "The snapshot.", schema: Snapshot },
    handle: ({ engine, params }) => engine.snapshots.get(params.id),
  }),
  emptyRoute({
    method: "DELETE",
    path: "/v1/snapshots/{id}",
    tag,
    summary: "Remove a snapshot that nothing needs.",
    description: "It is gone.",
    handle: ({ engine, params }) => engine.snapshots.remove(params.id),
  }),
  jsonRoute({
    method: "POST",
    path: "/v1/snapshots/{id}/restore",
    tag,
    summary: "Bring the VM of a snapshot back as it was, under its own id and name, while it does not run.",
    answer: { status: 200, description: "The running VM.", schema: Vm },
    handle: ({ engine, params, unattended }) => engine.snapshots.restore(params.id, unattended(CREATE_LIMIT_MS)),
  }),
  jsonRoute({
    method: "POST",
    path: "/v1/snapshots/{id}/verify",
    tag,
    summary: "Read all of a snapshot and compare it with its checksums.",
    answer: { status: 200, description: "What was found.", schema: VerifyResult },
    handle: ({ engine, params, deadline }) => engine.snapshots.verify(params.id, deadline(VERIFY_LIMIT_MS)),
  }),
  jsonRoute({
    method: "GET",
    path: "/v1/snapshots/{id}/diff",
    tag,
    summary: "What differs between a snapshot and another one of the same base, or the base (files: or the image).",
    query: z.strictObject({
      from: z.string().optional().describe("The other snapshot; without it the base template."),
      files: flag.describe("Files, too: a VM is brought up for that, whose workload does not run."),
    }),
    answer: { status: 200, description: "The pages that differ, and files.", schema: SnapshotDiff },
    handle({ engine, params, query: { from, files }, deadline }) {
      const options = { ...(from === undefined ? {} : { from }), files };
      return engine.snapshots.diff(params.id, options, deadline(VERIFY_LIMIT_MS));
    },
  }),
];

/** What may take long. */
const operations: readonly Route[] = [
  jsonRoute({
    method: "POST",
    path: "/v1/snapshots/import",
    tag,
    summary: "Import a snapshot from a file on the daemon's host that `export` wrote.",
    body: ImportSnapshotRequest,
    answer: started,
    location: operationLocation,
    handle: ({ engine, operations: running, body }) =>
      running.start("snapshot.import", async (options) => (await engine.snapshots.import(body, options)).id),
  }),
  jsonRoute({
    method: "POST",
    path: "/v1/snapshots/{id}/export",
    tag,
    summary: "Write a snapshot with all that another host needs into one file on the daemon's host.",
    body: ExportSnapshotRequest,
    answer: started,
    location: operationLocation,
    handle({ engine, operations: running, params, body }) {
      const { id } = engine.snapshots.get(params.id);
      return running.start("snapshot.export", async (options) => (await engine.snapshots.export(id, body, options)).id);
    },
  }),
  jsonRoute({
    method: "POST",
    path: "/v1/snapshots/{id}/promote",
    tag,
    summary: "Make a template of a snapshot, whose clones share all of its pages.",
    answer: started,
    location: operationLocation,
    handle({ engine, operations: running, params }) {
      const { id } = engine.snapshots.get(params.id);
      return running.start("snapshot.promote", async (options) => (await engine.snapshots.promote(id, options)).id);
    },
  }),
];

const lineage = jsonRoute({
  method: "GET",
  path: "/v1/tree",
  tag,
  summary: "Templates, snapshots and VMs by who came from whom, parents before children.",
  answer: { status: 200, description: "The nodes.", schema: z.array(TreeNode) },
  handle: ({ engine }) => engine.snapshots.tree(),
});

export const snapshotRoutes: readonly Route[] = [...ofVms, ...ofSnapshots, ...operations, lineage];
