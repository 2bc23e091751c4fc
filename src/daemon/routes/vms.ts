/** `/v1/vms`: what is created, listed, ended and asked about. */
import { z } from "zod";
import {
  CreateVmRequest,
  KillRequest,
  RefreshResult,
  StopRequest,
  Vm,
  VmChange,
  VmProcess,
  VmStats,
} from "../../contract/api.ts";
import { CREATE_LIMIT_MS, REQUEST_LIMIT_MS } from "../limits.ts";
import { flag, number } from "../query.ts";
import { RAW_STREAM, rawFrames } from "../raw-stream.ts";
import { contentRoute, emptyRoute, jsonRoute, type Route } from "../route.ts";
import { streamed } from "../streamed-body.ts";

const SIGKILL = 9;
const tag = "vms";

const create = jsonRoute({
  method: "POST",
  path: "/v1/vms",
  tag,
  summary: "Start a VM, and in it its main process if a command is given. Output goes to the logs.",
  headers: {
    "Idempotency-Key":
      "Asking again with the same key and body gives the same VM; with another body, idempotency_conflict.",
  },
  body: CreateVmRequest,
  answer: { status: 201, description: "The VM; it is ready.", schema: Vm },
  location: (vm) => `/v1/vms/${vm.id}`,
  async handle({ engine, body, request, vmCreations, deadline, unattended }) {
    const key = request.headers.get("idempotency-key");
    // With a key the creation outlives a client that goes away: it will ask again.
    const limit = key === null ? deadline(CREATE_LIMIT_MS) : unattended(CREATE_LIMIT_MS);
    return vmCreations.once(key, body, async () => (await engine.createVm(body, { deadline: limit })).vm);
  },
});

const list = jsonRoute({
  method: "GET",
  path: "/v1/vms",
  tag,
  summary: "All VMs, ended ones too.",
  answer: { status: 200, description: "The VMs.", schema: z.array(Vm) },
  handle: ({ engine }) => engine.listVms(),
});

const get = jsonRoute({
  method: "GET",
  path: "/v1/vms/{id}",
  tag,
  summary: "One VM, by id, name, or unambiguous beginning of the id.",
  answer: { status: 200, description: "The VM.", schema: Vm },
  handle: ({ engine, params }) => engine.getVm(params.id),
});

const remove = emptyRoute({
  method: "DELETE",
  path: "/v1/vms/{id}",
  tag,
  summary: "Remove a VM with its logs.",
  query: z.strictObject({ force: flag.describe("End it first if it runs.") }),
  description: "It is gone.",
  handle: ({ engine, params, query, unattended }) =>
    engine.removeVm(params.id, { force: query.force, deadline: unattended(REQUEST_LIMIT_MS) }),
});

const kill = jsonRoute({
  method: "POST",
  path: "/v1/vms/{id}/kill",
  tag,
  summary: "Send a signal to the main process; SIGKILL without a main process ends the VM.",
  body: KillRequest,
  bodyKind: "optional-json",
  answer: { status: 200, description: "The VM after the signal was sent.", schema: Vm },
  handle: ({ engine, params, body, unattended }) =>
    engine.killVm(params.id, body.signal ?? SIGKILL, unattended(REQUEST_LIMIT_MS)),
});

const stop = jsonRoute({
  method: "POST",
  path: "/v1/vms/{id}/stop",
  tag,
  summary:
    "The VM's stop signal to the main process, SIGKILL after the grace time. Answers when the VM has ended; a restart policy does not start it again.",
  body: StopRequest,
  bodyKind: "optional-json",
  answer: { status: 200, description: "The ended VM.", schema: Vm },
  handle: ({ engine, params, body, unattended }) =>
    engine.stopVm(params.id, body.graceMs, unattended(REQUEST_LIMIT_MS)),
});

const wait = jsonRoute({
  method: "POST",
  path: "/v1/vms/{id}/wait",
  tag,
  summary: "Wait until the VM has ended, however long that takes.",
  answer: { status: 200, description: "The ended VM.", schema: Vm },
  handle: ({ engine, params, signal }) => engine.waitVm(params.id, signal),
});

const logs = contentRoute({
  method: "GET",
  path: "/v1/vms/{id}/logs",
  tag,
  summary: "Kept output of the main process, both streams framed apart.",
  query: z.strictObject({
    follow: flag.describe("Go on until the VM ends."),
    tail: number(0, 1_000_000_000).optional().describe("Only so many last lines."),
  }),
  answer: {
    status: 200,
    description: "Frames: u8 channel (1 stdout, 2 stderr), 3 zero bytes, u32 big-endian length, bytes.",
    content: RAW_STREAM,
  },
  handle({ engine, params, query, signal }) {
    const { id } = engine.getVm(params.id);
    const tail = query.tail === undefined ? {} : { tail: query.tail };
    const chunks = engine.logs(id, { follow: query.follow, ...tail, signal });
    return streamed(rawFrames(chunks), `logs of ${id}`, { "content-type": RAW_STREAM });
  },
});

const guestConsole = contentRoute({
  method: "GET",
  path: "/v1/vms/{id}/console",
  tag,
  summary: "The last part of the guest kernel's console.",
  answer: { status: 200, description: "The text.", content: "text/plain" },
  async handle({ engine, params, deadline }) {
    const text = await engine.console(params.id, deadline(REQUEST_LIMIT_MS));
    return new Response(text, { headers: { "content-type": "text/plain; charset=utf-8" } });
  },
});

const stats = jsonRoute({
  method: "GET",
  path: "/v1/vms/{id}/stats",
  tag,
  summary: "What a running VM uses.",
  answer: { status: 200, description: "The figures of this moment.", schema: VmStats },
  handle: ({ engine, params, deadline }) => engine.statsVm(params.id, deadline(REQUEST_LIMIT_MS)),
});

const refresh = jsonRoute({
  method: "POST",
  path: "/v1/vms/{id}/refresh",
  tag,
  summary: "Give guest memory that a running VM does not use back to the host.",
  answer: { status: 200, description: "What the host has back.", schema: RefreshResult },
  handle: ({ engine, params, deadline }) => engine.refreshVm(params.id, deadline(CREATE_LIMIT_MS)),
});

const processes = jsonRoute({
  method: "GET",
  path: "/v1/vms/{id}/processes",
  tag,
  summary: "The processes of a running VM.",
  answer: { status: 200, description: "The processes, in the order of their pids.", schema: z.array(VmProcess) },
  handle: ({ engine, params, deadline }) => engine.listProcesses(params.id, deadline(REQUEST_LIMIT_MS)),
});

const changes = jsonRoute({
  method: "GET",
  path: "/v1/vms/{id}/changes",
  tag,
  summary: "What a running VM has changed of its image.",
  answer: { status: 200, description: "The changes, in the order of their paths.", schema: z.array(VmChange) },
  handle: ({ engine, params, deadline }) => engine.listChanges(params.id, deadline(REQUEST_LIMIT_MS)),
});

export const vmRoutes: readonly Route[] = [
  create,
  list,
  get,
  remove,
  kill,
  stop,
  wait,
  logs,
  guestConsole,
  stats,
  refresh,
  processes,
  changes,
];
