/** Processes with live streams: `/v1/vms/run`, `/v1/vms/{id}/exec`, `/v1/vms/{id}/attach`; and exec in one request. */
import { ExecRequest, ExecResult } from "../../contract/api.ts";
import { MayflyError } from "../../contract/errors.ts";
import type { Engine, OutputChannel, ProcessSession } from "../../engine/interface.ts";
import { Deadline } from "../../sys/deadline.ts";
import { CREATE_LIMIT_MS, HANGUP_GRACE_MS, REQUEST_LIMIT_MS } from "../limits.ts";
import { log } from "../log.ts";
import { problemOf } from "../problem.ts";
import { jsonRoute, type Route, streamRoute } from "../route.ts";
import { acceptStream, type StreamTarget } from "../stream-session.ts";

const SIGHUP = 1;
const SIGKILL = 9;
/** Most bytes of each stream in an {@link ExecResult}. */
const RESULT_LIMIT_BYTES = 1 << 20;
const tag = "streams";

const run = streamRoute({
  method: "GET",
  path: "/v1/vms/run",
  tag,
  summary: "Start a VM and its main process, and be connected to it. Begins with `create`.",
  handle: ({ engine }) => acceptStream(runTarget(engine)),
});

const exec = streamRoute({
  method: "GET",
  path: "/v1/vms/{id}/exec",
  tag,
  summary: "Start a process in a VM and be connected to it. Begins with `exec`.",
  handle: ({ engine, params }) => acceptStream(execTarget(engine, params.id)),
});

const attach = streamRoute({
  method: "GET",
  path: "/v1/vms/{id}/attach",
  tag,
  summary: "Be connected to the main process of a VM. Begins with `attach`.",
  handle: ({ engine, params }) => acceptStream(attachTarget(engine, params.id)),
});

const execToEnd = jsonRoute({
  method: "POST",
  path: "/v1/vms/{id}/exec",
  tag,
  summary: "Run a process in a VM to its end. It is killed if the client goes away.",
  body: ExecRequest,
  answer: { status: 200, description: "Its exit status and output.", schema: ExecResult },
  handle: ({ engine, params, body, signal, deadline }) =>
    runToEnd(engine, params.id, body, signal, deadline(REQUEST_LIMIT_MS)),
});

export const streamRoutes: readonly Route[] = [run, exec, attach, execToEnd];

function runTarget(engine: Engine): StreamTarget<"create"> {
  return {
    opens: "create",
    async start({ request }, { sink, signal, progress }) {
      const { command, image, template, snapshot } = request;
      if ([command, image, template, snapshot].every((from) => from === undefined)) throw withoutCommand();
      // Only what would be removed anyway is undone when the client goes away meanwhile.
      const deadline = Deadline.after(CREATE_LIMIT_MS, request.autoRemove ? signal : undefined);
      const { vm, process } = await engine.createVm(request, { deadline, sink, onProgress: progress });
      if (process === undefined) {
        // Neither the request nor what it starts from has one.
        await engine.removeVm(vm.id, { force: true, deadline: Deadline.after(REQUEST_LIMIT_MS) });
        throw withoutCommand();
      }
      const started = { vm, process, stdin: request.stdin ?? false };
      return request.autoRemove ? { ...started, abandoned: () => void hangUp(engine, vm.id, process) } : started;
    },
  };
}

function withoutCommand(): MayflyError {
  return new MayflyError(
    "invalid_argument",
    "A stream needs a command to run, or an image, template or snapshot that has one; POST /v1/vms starts a VM without one",
  );
}

function execTarget(engine: Engine, ref: string): StreamTarget<"exec"> {
  return {
    opens: "exec",
    async start({ request }, { sink, signal }) {
      const vm = engine.getVm(ref);
      const process = await engine.exec(vm.id, request, sink, Deadline.after(REQUEST_LIMIT_MS, signal));
      return { vm, process, stdin: request.stdin ?? false };
    },
  };
}

function attachTarget(engine: Engine, ref: string): StreamTarget<"attach"> {
  return {
    opens: "attach",
    async start({ stdin, logs }, { sink, signal }) {
      const found = engine.getVm(ref);
      const isSuspended = found.state === "suspended";
      const vm = isSuspended
        ? await engine.snapshots.resume(found.id, Deadline.after(REQUEST_LIMIT_MS, signal))
        : found;
      return { vm, process: engine.attach(vm.id, sink, { logs }), stdin };
    },
  };
}

/** Nobody is left to see the VM: its main process is told by SIGHUP, and soon after the VM is removed. */
async function hangUp(engine: Engine, id: string, process: ProcessSession): Promise<void> {
  process.signal(SIGHUP);
  process.detach();
  const ended = Deadline.after(HANGUP_GRACE_MS).race(process.exited, `the end of ${id} after SIGHUP`);
  await ended.catch(() => undefined);
  try {
    await engine.removeVm(id, { force: true, deadline: Deadline.after(REQUEST_LIMIT_MS) });
  } catch (error) {
    const problem = problemOf(error);
    if (problem.code !== "vm_not_found")
      log("error", "cannot remove a VM whose client has gone", { vm: id, error: problem.detail });
  }
}

/** Output of one stream up to the limit. */
class KeptOutput {
  readonly #parts: Uint8Array[] = [];
  #length = 0;
  truncated = false;

  add(chunk: Uint8Array): void {
    const room = RESULT_LIMIT_BYTES - this.#length;
    if (chunk.length > room) this.truncated = true;
    if (room <= 0) return;
    const part = chunk.slice(0, room);
    this.#parts.push(part);
    this.#length += part.length;
  }

  base64(): string {
    return Buffer.concat(this.#parts).toString("base64");
  }
}

async function runToEnd(
  engine: Engine,
  ref: string,
  request: ExecRequest,
  signal: AbortSignal,
  deadline: Deadline,
): Promise<ExecResult> {
  const kept = { 1: new KeptOutput(), 2: new KeptOutput() } satisfies Record<OutputChannel, KeptOutput>;
  const sink = {
    output(channel: OutputChannel, chunk: Uint8Array): undefined {
      kept[channel].add(chunk);
    },
  };
  const process = await engine.exec(ref, { ...request, stdin: false }, sink, deadline);
  const kill = () => process.signal(SIGKILL);
  signal.addEventListener("abort", kill, { once: true });
  if (signal.aborted) kill();
  try {
    const { exitCode, signal: endedBy } = await process.exited;
    const truncated = kept[1].truncated || kept[2].truncated;
    return { exitCode, signal: endedBy, stdout: kept[1].base64(), stderr: kept[2].base64(), truncated };
  } finally {
    signal.removeEventListener("abort", kill);
  }
}
