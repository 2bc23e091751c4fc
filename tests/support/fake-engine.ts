/** An engine in memory, for tests of the daemon only: VMs are records, processes are scripts of the test. */
import type {
  BuildImageRequest,
  BuildTemplateRequest,
  CreateVmRequest,
  CreateVolumeRequest,
  DiskUsage,
  Event,
  ExecRequest,
  FileStat,
  Image,
  ImportImageRequest,
  LoadImageRequest,
  PoolRequest,
  PruneImagesRequest,
  PruneResult,
  PullImageRequest,
  SystemInfo,
  Template,
  VerifyResult,
  Vm,
  VmChange,
  VmProcess,
  Volume,
} from "../../src/contract/api.ts";
import { type ErrorCode, MayflyError } from "../../src/contract/errors.ts";
import type {
  Engine,
  ExitStatus,
  LogChunk,
  OutputSink,
  ProcessSession,
  ProgressOptions,
} from "../../src/engine/interface.ts";
import type { Deadline } from "../../src/sys/deadline.ts";
import { newId } from "../../src/sys/ids.ts";
import { buildFake, loadFake, pullFake, receiveFake } from "./fake-images.ts";
import { FakeSnapshots } from "./fake-snapshots.ts";
import {
  fakeRefresh,
  fakeStats,
  sampleImage,
  sampleInfo,
  sampleProcess,
  sampleTemplate,
  sampleVm,
  sampleVolume,
} from "./samples.ts";

/** A process of the fake: the test writes its output and ends it. */
export class FakeProcess implements ProcessSession {
  readonly #exit = Promise.withResolvers<ExitStatus>();
  readonly exited = this.#exit.promise;
  readonly input: Uint8Array[] = [];
  readonly signals: number[] = [];
  readonly sizes: [rows: number, columns: number][] = [];
  inputClosed = false;
  detached = false;
  /** What `write` waits for, to hold input back. */
  gate: Promise<void> = Promise.resolve();

  constructor(
    readonly sink: OutputSink | undefined,
    readonly request: ExecRequest | CreateVmRequest,
  ) {
    this.exited.catch(() => undefined);
  }

  async write(bytes: Uint8Array): Promise<void> {
    await this.gate;
    this.input.push(bytes);
  }

  closeInput(): void {
    this.inputClosed = true;
  }

  resize(rows: number, columns: number): void {
    this.sizes.push([rows, columns]);
  }

  signal(signal: number): void {
    this.signals.push(signal);
  }

  detach(): void {
    this.detached = true;
  }

  /** Prints, and waits until the client has taken it. */
  async print(text: string | Uint8Array, channel: 1 | 2 = 1): Promise<void> {
    await this.sink?.output(channel, typeof text === "string" ? new TextEncoder().encode(text) : text);
  }

  exit(exitCode: number, signal = 0): void {
    this.#exit.resolve({ exitCode, signal });
  }

  fail(error: MayflyError): void {
    this.#exit.reject(error);
  }
}

/** Runs when a process is made: by default it prints its arguments and exits with 0. */
export type Script = (process: FakeProcess) => void;

const echo: Script = (process) => {
  void process.print(`${(process.request.command ?? []).slice(1).join(" ")}\n`).then(() => process.exit(0));
};

export class FakeEngine implements Engine {
  readonly vms = new Map<string, Vm>();
  readonly processes: FakeProcess[] = [];
  readonly files = new Map<string, Uint8Array>();
  readonly volumes = new Map<string, Volume>();
  readonly snapshots = new FakeSnapshots(this);
  readonly removed: string[] = [];
  readonly listeners = new Set<(event: Event) => void>();
  logChunks: LogChunk[] = [];
  vmProcesses: VmProcess[] = [sampleProcess];
  vmChanges: VmChange[] = [{ kind: "changed", path: "/etc" }];
  script: Script = echo;
  /** Awaited by what takes long, with the step told first. */
  work: (options: ProgressOptions) => Promise<void> = () => Promise.resolve();
  created = 0;
  closed = false;

  async createVm(request: CreateVmRequest, options: ProgressOptions & { sink?: OutputSink }) {
    this.created += 1;
    await options.deadline.race(this.work(options), "the fake's work");
    const vm = {
      ...sampleVm,
      id: newId("vm"),
      name: request.name ?? `vm${this.created}`,
      command: request.command ?? [],
    };
    this.vms.set(vm.id, vm);
    const process = request.command === undefined ? undefined : this.#process(options.sink, request);
    return { vm, process };
  }

  listVms(): Vm[] {
    return [...this.vms.values()];
  }

  getVm(ref: string): Vm {
    const vm = this.vms.get(ref) ?? this.listVms().find(({ name }) => name === ref);
    if (vm === undefined) throw missing("vm_not_found", "VM", ref);
    return vm;
  }

  async exec(ref: string, request: ExecRequest, sink: OutputSink, _deadline: Deadline): Promise<ProcessSession> {
    this.getVm(ref);
    if (request.command[0] === "missing") throw missing("command_not_found", "command", "missing");
    return this.#process(sink, request);
  }

  attach(ref: string, sink: OutputSink, _options: { logs: boolean }): ProcessSession {
    return this.#process(sink, { command: this.getVm(ref).command });
  }

  async *logs(ref: string, options: { follow: boolean; tail?: number; signal: AbortSignal }): AsyncIterable<LogChunk> {
    this.getVm(ref);
    yield* options.tail === undefined ? this.logChunks : this.logChunks.slice(-options.tail);
    if (options.follow && !options.signal.aborted) {
      await new Promise<void>((resolve) => options.signal.addEventListener("abort", () => resolve(), { once: true }));
    }
  }

  async killVm(ref: string, signal: number): Promise<Vm> {
    const vm = this.getVm(ref);
    this.#change(vm, { exitSignal: signal });
    return this.getVm(ref);
  }

  async stopVm(ref: string, graceMs: number | undefined, _deadline: Deadline): Promise<Vm> {
    this.#change(this.getVm(ref), { state: "exited", labels: { graceMs: String(graceMs) } });
    return this.getVm(ref);
  }

  async removeVm(ref: string, options: { force: boolean }): Promise<void> {
    const vm = this.getVm(ref);
    if (vm.state === "running" && !options.force)
      throw new MayflyError("vm_running", `Cannot remove VM ${ref}: it runs`);
    this.vms.delete(vm.id);
    this.removed.push(vm.id);
  }

  async waitVm(ref: string, signal: AbortSignal): Promise<Vm> {
    const vm = this.getVm(ref);
    if (vm.state !== "exited") {
      await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
    }
    return vm;
  }

  statsVm = async (ref: string) => fakeStats(this.getVm(ref));
  refreshVm = async (ref: string) => fakeRefresh(this.getVm(ref));

  async listProcesses(ref: string): Promise<VmProcess[]> {
    this.getVm(ref);
    return this.vmProcesses;
  }

  async listChanges(ref: string): Promise<VmChange[]> {
    this.getVm(ref);
    return this.vmChanges;
  }

  async console(ref: string): Promise<string> {
    return `console of ${this.getVm(ref).name}\n`;
  }

  async readFile(_ref: string, path: string): Promise<{ stat: FileStat; content: AsyncIterable<Uint8Array> }> {
    const bytes = this.#file(path);
    const content = (async function* () {
      for (let at = 0; at < bytes.length; at += 65_536) yield bytes.subarray(at, at + 65_536);
    })();
    return { stat: this.#stat(path), content };
  }

  async writeFile(_ref: string, path: string, content: AsyncIterable<Uint8Array>): Promise<void> {
    const parts: Uint8Array[] = [];
    for await (const part of content) parts.push(part);
    this.files.set(path, Buffer.concat(parts));
  }

  async statFile(_ref: string, path: string): Promise<FileStat> {
    return this.#stat(path);
  }

  async listFiles(_ref: string, path: string): Promise<FileStat[]> {
    return [...this.files.keys()].filter((name) => name.startsWith(`${path}/`)).map((name) => this.#stat(name));
  }

  async makeDirectory(_ref: string, path: string): Promise<void> {
    this.files.set(path, new Uint8Array());
  }

  async removeFile(_ref: string, path: string): Promise<void> {
    this.#file(path);
    this.files.delete(path);
  }

  listTemplates = (): Template[] => [sampleTemplate];

  getTemplate(ref: string): Template {
    if (ref !== sampleTemplate.id) throw missing("template_not_found", "template", ref);
    return sampleTemplate;
  }

  async buildTemplate(_request: BuildTemplateRequest, options: ProgressOptions): Promise<Template> {
    options.onProgress?.("boot");
    await options.deadline.race(this.work(options), "the fake's work");
    return sampleTemplate;
  }

  resizePool = async (ref: string, pool: PoolRequest): Promise<Template> => ({ ...this.getTemplate(ref), pool });

  async verifyTemplate(ref: string): Promise<VerifyResult> {
    return { id: this.getTemplate(ref).id, ok: true, problems: [] };
  }

  async removeTemplate(ref: string): Promise<void> {
    this.removed.push(this.getTemplate(ref).id);
  }

  listImages = (): Image[] => [sampleImage];

  getImage(ref: string): Image {
    if (ref !== sampleImage.name) throw missing("image_not_found", "image", ref);
    return sampleImage;
  }

  async importImage(request: ImportImageRequest, options: ProgressOptions): Promise<Image> {
    options.onProgress?.("unpack");
    if (request.path === "/bad") throw new MayflyError("image_invalid", "Cannot import /bad: it is no image");
    return sampleImage;
  }

  async removeImage(ref: string): Promise<string[]> {
    this.removed.push(this.getImage(ref).id);
    return [ref];
  }

  inspectImage = async (ref: string) => ({ ...this.getImage(ref), document: { architecture: "amd64" } });
  pullImage = (request: PullImageRequest, options: ProgressOptions) => pullFake(this, request, options);
  loadImage = async ({ path }: LoadImageRequest) => loadFake(path);
  receiveArchive = receiveFake;
  buildImage = (request: BuildImageRequest, options: ProgressOptions) => buildFake(this, request, options);
  tagImage = async (ref: string, name: string) => ({ ...this.getImage(ref), name });
  pruneImages = async ({ all }: PruneImagesRequest) => ({ removed: all ? [sampleImage.name] : [], freedBytes: 0 });

  listVolumes(): Volume[] {
    return [...this.volumes.values()];
  }

  getVolume(name: string): Volume {
    const volume = this.volumes.get(name);
    if (volume === undefined) throw missing("volume_not_found", "volume", name);
    return volume;
  }

  async createVolume(request: CreateVolumeRequest): Promise<Volume> {
    const { name = "unnamed", sizeBytes = sampleVolume.sizeBytes, labels = {} } = request;
    if (this.volumes.has(name)) throw new MayflyError("name_in_use", `There is a volume ${name}`);
    this.volumes.set(name, { ...sampleVolume, name, sizeBytes, labels });
    return this.getVolume(name);
  }

  async resizeVolume(name: string, sizeBytes: number): Promise<Volume> {
    this.volumes.set(name, { ...this.getVolume(name), sizeBytes });
    return this.getVolume(name);
  }

  async removeVolume(name: string): Promise<void> {
    this.volumes.delete(this.getVolume(name).name);
    this.removed.push(name);
  }

  async pruneVolumes({ all }: { all: boolean }): Promise<PruneResult> {
    const removed = this.listVolumes().filter(({ anonymous }) => all || anonymous);
    for (const { name } of removed) this.volumes.delete(name);
    return { removed: removed.map(({ name }) => name), freedBytes: 0 };
  }

  info(): SystemInfo {
    return sampleInfo;
  }

  async diskUsage(): Promise<DiskUsage> {
    const none = { count: 0, bytes: 0, reclaimableBytes: 0 };
    return { templates: none, images: none, vms: none, volumes: none, snapshots: none, directories: none };
  }

  async prune(): Promise<PruneResult> {
    return { removed: [], freedBytes: 0 };
  }

  subscribe(listener: (event: Event) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  emit(event: Event): void {
    for (const listener of [...this.listeners]) listener(event);
  }

  metrics(): ReturnType<Engine["metrics"]> {
    return {
      histograms: [
        {
          name: "mayfly_clone_stage_seconds",
          help: "Time of a stage.",
          labels: { stage: "spawn" },
          buckets: [
            { le: 0.01, count: 1 },
            { le: 0.1, count: 3 },
          ],
          sum: 0.2,
          count: 4,
        },
      ],
      samples: [{ name: "mayfly_vms", help: "VMs.", type: "gauge", labels: { state: 'a"b' }, value: this.vms.size }],
    };
  }

  async close(): Promise<void> {
    this.closed = true;
  }

  #process(sink: OutputSink | undefined, request: ExecRequest | CreateVmRequest): FakeProcess {
    const process = new FakeProcess(sink, request);
    this.processes.push(process);
    queueMicrotask(() => this.script(process));
    return process;
  }

  #change(vm: Vm, change: Partial<Vm>): void {
    this.vms.set(vm.id, { ...vm, ...change });
  }

  #file(path: string): Uint8Array {
    const bytes = this.files.get(path);
    if (bytes === undefined) throw missing("file_not_found", "file", path);
    return bytes;
  }

  #stat(path: string): FileStat {
    const size = this.#file(path).length;
    const name = path.slice(path.lastIndexOf("/") + 1);
    return { name, type: "file", mode: 0o644, uid: 0, gid: 0, size, mtime: new Date(0).toISOString() };
  }
}

function missing(code: ErrorCode, what: string, ref: string): MayflyError {
  return new MayflyError(code, `There is no ${what} ${ref}`);
}
