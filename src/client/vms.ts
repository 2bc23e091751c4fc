/** VMs: made, listed, ended, and processes in them. `vm` everywhere is an id, a name, or an unambiguous beginning of an id. */
import type {
  CheckpointRequest,
  CreateVmRequest,
  ExecRequest,
  ExecResult,
  ForkRequest,
  ForkResult,
  KillRequest,
  RefreshResult,
  Snapshot,
  StopRequest,
  Vm,
  VmChange,
  VmProcess,
  VmStats,
} from "../contract/api.ts";
import { openProcess, type Process } from "./process.ts";
import { type OutputChunk, readRawStream } from "./raw-stream.ts";
import { type CallOptions, type Rest, segment } from "./rest.ts";

/** Options of calls that may have to build a template first. */
export interface ProgressCallOptions {
  onProgress?: (step: string) => void;
}

/** Options of calls that make something. */
export interface OnceOptions extends CallOptions {
  /** Asked again with the same key, what was made the first time is the answer. */
  idempotencyKey?: string;
}

/** What can be done with VMs. */
export interface Vms {
  /** Starts a VM, and its main process if a command is given; the output goes to the logs. A repeated call with the same `idempotencyKey` gives the same VM. */
  create(request: CreateVmRequest, options?: OnceOptions): Promise<Vm>;
  /** Starts a VM with a main process, and connects to it. */
  run(request: CreateVmRequest & { command: string[] }, options?: ProgressCallOptions): Promise<Process>;
  /** Starts a process in a running VM, and connects to it. */
  exec(vm: string, request: ExecRequest): Promise<Process>;
  /** Runs a process to its end in one request: its exit and at most 1 MiB of each output, in base64. */
  execToEnd(vm: string, request: ExecRequest, options?: CallOptions): Promise<ExecResult>;
  /** Connects to the main process. With `logs`, kept output comes first. */
  attach(vm: string, options?: { stdin?: boolean; logs?: boolean }): Promise<Process>;
  /** All VMs, ended ones too. */
  list(options?: CallOptions): Promise<Vm[]>;
  get(vm: string, options?: CallOptions): Promise<Vm>;
  /** Sends a signal (SIGKILL without one) to the main process. */
  kill(vm: string, signal?: number, options?: CallOptions): Promise<Vm>;
  /** The VM's stop signal, then SIGKILL after `graceMs` (the VM's own, or 10 seconds); resolves when the VM has ended, for good. */
  stop(vm: string, graceMs?: number, options?: CallOptions): Promise<Vm>;
  remove(vm: string, options?: CallOptions & { force?: boolean }): Promise<void>;
  /** Writes a running VM's state into a snapshot; with `stop`, suspends it. A repeated call with the same `idempotencyKey` gives the same snapshot. */
  checkpoint(vm: string, request?: CheckpointRequest, options?: OnceOptions): Promise<Snapshot>;
  /** Brings a suspended VM back; one that runs stays as it is. */
  resume(vm: string, options?: CallOptions): Promise<Vm>;
  /** Starts VMs from a running one, which goes on; all of them are ready. A repeated call with the same `idempotencyKey` gives the same VMs. */
  fork(vm: string, request?: ForkRequest, options?: OnceOptions): Promise<ForkResult>;
  /** Resolves when the VM has ended. */
  wait(vm: string, options?: CallOptions): Promise<Vm>;
  stats(vm: string, options?: CallOptions): Promise<VmStats>;
  /** Gives guest memory that a running VM does not use back to the host. */
  refresh(vm: string, options?: CallOptions): Promise<RefreshResult>;
  /** Its processes, in the order of their pids. */
  processes(vm: string, options?: CallOptions): Promise<VmProcess[]>;
  /** What it has added, changed and deleted of its image, in the order of the paths. */
  changes(vm: string, options?: CallOptions): Promise<VmChange[]>;
  /** Kept output of the main process. With `follow`, goes on until the VM ends or the loop is left. `tail`: only so many last lines. */
  logs(vm: string, options?: CallOptions & { follow?: boolean; tail?: number }): AsyncIterable<OutputChunk>;
  /** The last part of the guest kernel's console. */
  console(vm: string, options?: CallOptions): Promise<string>;
}

/** The calls for VMs. */
export function vms(rest: Rest): Vms {
  const at = (vm: string, verb = "") => `/v1/vms/${segment(vm)}${verb}`;
  const once = <T>(path: string, json: unknown, { idempotencyKey, ...options }: OnceOptions = {}): Promise<T> => {
    const headers = idempotencyKey === undefined ? {} : { "idempotency-key": idempotencyKey };
    return rest.json("POST", path, { ...options, headers, json });
  };
  return {
    create: (json, options) => once("/v1/vms", json, options),
    run: (request, { onProgress } = {}) =>
      openProcess(rest.transport, "/v1/vms/run", { type: "create", request }, onProgress),
    exec: (vm, request) => openProcess(rest.transport, at(vm, "/exec"), { type: "exec", request }),
    execToEnd: (vm, json, options) => rest.json("POST", at(vm, "/exec"), { ...options, json }),
    attach: (vm, { stdin = false, logs = false } = {}) =>
      openProcess(rest.transport, at(vm, "/attach"), { type: "attach", stdin, logs }),
    list: (options) => rest.json("GET", "/v1/vms", options),
    get: (vm, options) => rest.json("GET", at(vm), options),
    kill(vm, signal, options) {
      const json: KillRequest = signal === undefined ? {} : { signal };
      return rest.json("POST", at(vm, "/kill"), { ...options, json });
    },
    stop(vm, graceMs, options) {
      const json: StopRequest = graceMs === undefined ? {} : { graceMs };
      return rest.json("POST", at(vm, "/stop"), { ...options, json });
    },
    remove: (vm, { force, ...options } = {}) => rest.empty("DELETE", at(vm), { ...options, query: { force } }),
    checkpoint: (vm, request = {}, options) => once(at(vm, "/checkpoint"), request, options),
    resume: (vm, options) => rest.json("POST", at(vm, "/resume"), options),
    fork: (vm, request = {}, options) => once(at(vm, "/fork"), request, options),
    wait: (vm, options) => rest.json("POST", at(vm, "/wait"), options),
    processes: (vm, options) => rest.json("GET", at(vm, "/processes"), options),
    changes: (vm, options) => rest.json("GET", at(vm, "/changes"), options),
    stats: (vm, options) => rest.json("GET", at(vm, "/stats"), options),
    refresh: (vm, options) => rest.json("POST", at(vm, "/refresh"), options),
    async *logs(vm, { follow, tail, ...options } = {}) {
      const response = await rest.send("GET", at(vm, "/logs"), { ...options, query: { follow, tail } });
      yield* readRawStream(response.chunks());
    },
    async console(vm, options) {
      return (await rest.send("GET", at(vm, "/console"), options)).text();
    },
  };
}
