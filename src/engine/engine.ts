/** The engine of one state directory: the parts of it behind one interface. */
import type {
  BuildImageRequest,
  BuildTemplateRequest,
  CreateVmRequest,
  CreateVolumeRequest,
  Event,
  ExecRequest,
  ImportImageRequest,
  LoadImageRequest,
  PoolRequest,
  PruneImagesRequest,
  PullImageRequest,
  Vm,
} from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import { VERSION } from "../contract/version.ts";
import { CONSOLE_RING } from "../machine/arguments.ts";
import type { Deadline } from "../sys/deadline.ts";
import { hostCpuCount } from "../sys/host.ts";
import { requireMerging } from "../sys/memory-merging.ts";
import { ownRssBytes } from "../sys/process.ts";
import type { Admission } from "./admission.ts";
import { listChanges } from "./changes.ts";
import { createVm, relaunch } from "./create.ts";
import { diskUsage, pruneAll, pruneImages } from "./disk-usage.ts";
import type { Events } from "./events.ts";
import { describeFile, listDirectory, readContents, writeContents } from "./files.ts";
import type { ForkCopies } from "./fork-source.ts";
import { Gate } from "./gate.ts";
import type { Host } from "./host.ts";
import type { ImageMaker } from "./image-maker.ts";
import type { ImageOperations } from "./image-operations.ts";
import type { Images } from "./images.ts";
import type { Engine, OutputSink, ProgressOptions } from "./interface.ts";
import { attachWithLogs, readLogs } from "./logs.ts";
import type { Metrics } from "./metrics.ts";
import type { Pools } from "./pools.ts";
import type { ProcessImages } from "./process-images.ts";
import { listProcesses } from "./processes.ts";
import { refreshVm } from "./refresh.ts";
import type { SnapshotRecords } from "./snapshot-records.ts";
import { LocalSnapshots } from "./snapshots.ts";
import { statsOf } from "./statistics.ts";
import type { SuspendedImages } from "./suspended-images.ts";
import type { Templates } from "./templates.ts";
import type { Vms } from "./vms.ts";
import type { Volumes } from "./volumes.ts";

/** Bytes of a guest's console that are kept, as many as its ring has. */
const CONSOLE_BYTES = 65_536;
const SIGKILL = 9;

/** What an engine is made of. */
export interface EngineParts {
  host: Host;
  templates: Templates;
  images: Images;
  imageOperations: ImageOperations;
  vms: Vms;
  volumes: Volumes;
  snapshots: SnapshotRecords;
  pools: Pools;
  processImages: ProcessImages;
  imageMaker: ImageMaker;
  forkCopies: ForkCopies;
  suspendedImages: SuspendedImages;
  admission: Admission;
  events: Events;
  metrics: Metrics;
  /** Frees the state directory. */
  close: () => void;
}

/** Clones started at once: one more than the cores that start them hides their waits. */
function gateWidth(): number {
  return hostCpuCount() + 1;
}

/** The {@link Engine} over QEMU processes of this host. */
export class LocalEngine implements Engine {
  readonly #gate = new Gate(gateWidth());
  readonly snapshots: LocalSnapshots;

  constructor(private readonly parts: EngineParts) {
    this.snapshots = new LocalSnapshots(parts, this.#gate);
    parts.vms.relaunch = (vm, request, deadline) =>
      request.snapshot === undefined
        ? relaunch(parts, this.#gate, vm, request, deadline)
        : this.snapshots.relaunch(vm, request, deadline);
    parts.vms.idle.refresh = (id, deadline) => this.refreshVm(id, deadline);
    parts.vms.idle.suspend = (id, deadline) => this.snapshots.checkpoint(id, { stop: true }, deadline);
    parts.admission.relieve = () => parts.vms.idle.relieve();
    parts.pools.onPressure = () => parts.vms.idle.relieve();
  }

  createVm = async (request: CreateVmRequest, options: ProgressOptions & { sink?: OutputSink }) => {
    if (request.merge === true) requireMerging();
    return request.snapshot === undefined
      ? createVm(this.parts, this.#gate, request, options)
      : this.snapshots.clone(request, options);
  };

  listVms = () => this.parts.vms.list();
  getVm = (ref: string) => this.parts.vms.get(ref);

  exec = async (ref: string, request: ExecRequest, sink: OutputSink, deadline: Deadline) => {
    await this.snapshots.awaken(ref, deadline);
    return this.parts.vms.exec(ref, request, sink, deadline);
  };

  attach = (ref: string, sink: OutputSink, options: { logs: boolean }) =>
    attachWithLogs(this.parts.vms, ref, sink, options);

  logs = (ref: string, options: Parameters<Engine["logs"]>[1]) => readLogs(this.parts, ref, options);

  killVm = async (ref: string, signal: number, deadline: Deadline) => {
    // To be killed it need not run.
    if (signal !== SIGKILL) await this.snapshots.awaken(ref, deadline);
    return this.parts.vms.kill(ref, signal, deadline);
  };
  stopVm = async (ref: string, graceMs: number | undefined, deadline: Deadline) => {
    await this.snapshots.awaken(ref, deadline);
    return this.parts.vms.stop(ref, graceMs, deadline);
  };
  removeVm = (ref: string, options: { force: boolean; deadline: Deadline }) =>
    this.parts.vms.remove(ref, options.force);
  waitVm = async (ref: string, signal: AbortSignal): Promise<Vm> => this.parts.vms.wait(ref, signal);

  statsVm = (ref: string, deadline: Deadline) => statsOf(this.parts.vms, ref, deadline);
  refreshVm = (ref: string, deadline: Deadline) => refreshVm(this.parts, ref, deadline);

  listProcesses = async (ref: string, deadline: Deadline) => {
    await this.snapshots.awaken(ref, deadline);
    return listProcesses(this.parts.vms.withMain(ref).agent, deadline);
  };

  async listChanges(ref: string, deadline: Deadline) {
    const { vms } = this.parts;
    await this.snapshots.awaken(ref, deadline);
    const { agent, id } = vms.running(ref);
    const record = vms.record(id);
    if (record?.container === null || record === undefined) {
      throw new MayflyError("invalid_argument", `VM ${vms.get(id).name} has no image that it could have changed`, {
        vmId: id,
      });
    }
    return listChanges(agent, record.vm.mounts, deadline);
  }

  async console(ref: string, deadline: Deadline): Promise<string> {
    const running = this.parts.vms.running(ref);
    const qmp = await running.clone.qemu.qmp(deadline);
    const size = CONSOLE_BYTES;
    const text = await qmp.execute("ringbuf-read", { device: CONSOLE_RING, size }, deadline);
    // What was read is gone from the ring.
    if (typeof text === "string") running.console = (running.console + text).slice(-size);
    return running.console;
  }

  readFile = async (ref: string, path: string, deadline: Deadline) =>
    readContents(await this.#agent(ref, deadline), path, deadline);

  writeFile = async (
    ref: string,
    path: string,
    content: AsyncIterable<Uint8Array>,
    options: Parameters<Engine["writeFile"]>[3],
  ) => writeContents(await this.#agent(ref, options.deadline), path, content, options);

  async statFile(ref: string, path: string, deadline: Deadline) {
    const stat = await (await this.#agent(ref, deadline)).stat(path, deadline, { noFollow: true });
    return describeFile(path.slice(path.lastIndexOf("/") + 1), stat);
  }

  listFiles = async (ref: string, path: string, deadline: Deadline) =>
    listDirectory(await this.#agent(ref, deadline), path, deadline);

  makeDirectory = async (ref: string, path: string, { deadline, ...options }: Parameters<Engine["makeDirectory"]>[2]) =>
    (await this.#agent(ref, deadline)).mkdir(path, deadline, options);

  removeFile = async (ref: string, path: string, { deadline, ...options }: Parameters<Engine["removeFile"]>[2]) =>
    (await this.#agent(ref, deadline)).remove(path, deadline, options);

  listTemplates = () => this.parts.templates.list();
  getTemplate = (ref: string) => this.parts.templates.get(ref);

  async buildTemplate(request: BuildTemplateRequest, options: ProgressOptions) {
    const { imageMaker, pools, templates } = this.parts;
    const onProgress = options.onProgress ?? (() => undefined);
    const loaded = await templates.build(request, onProgress, options.deadline);
    await pools.resize(loaded);
    onProgress("writing down a warm clone");
    await imageMaker.make(loaded);
    return templates.get(loaded.id);
  }

  async resizePool(ref: string, sizes: PoolRequest) {
    const { pools, templates } = this.parts;
    const loaded = templates.setPool(ref, sizes);
    await pools.resize(loaded);
    return templates.get(loaded.id);
  }

  verifyTemplate = (ref: string) => this.parts.templates.verify(ref);
  removeTemplate = (ref: string, options: { force: boolean }) => this.parts.templates.remove(ref, options.force);

  listImages = () => this.parts.images.list();
  getImage = (ref: string) => this.parts.images.get(ref);
  inspectImage = (ref: string) => this.parts.images.details(ref);
  importImage = (request: ImportImageRequest, options: ProgressOptions) =>
    this.parts.imageOperations.import(request, options);
  pullImage = (request: PullImageRequest, options: ProgressOptions) =>
    this.parts.imageOperations.pull(request, options);
  loadImage = (request: LoadImageRequest, options: ProgressOptions) =>
    this.parts.imageOperations.load(request, options);
  receiveArchive = (content: AsyncIterable<Uint8Array>) => this.parts.imageOperations.receive(content);
  buildImage = (request: BuildImageRequest, options: ProgressOptions) =>
    this.parts.imageOperations.build(request, options);
  tagImage = (ref: string, name: string) => this.parts.images.tag(ref, name);
  removeImage = (ref: string, options?: { force: boolean }) => this.parts.images.remove(ref, options?.force);
  pruneImages = ({ all = false }: PruneImagesRequest) => pruneImages(this.parts, all);

  listVolumes = () => this.parts.volumes.list();
  getVolume = (name: string) => this.parts.volumes.get(name);
  createVolume = (request: CreateVolumeRequest) => this.parts.volumes.create(request);
  resizeVolume = (name: string, sizeBytes: number) => this.parts.volumes.resize(name, sizeBytes);
  removeVolume = (name: string) => this.parts.volumes.remove(name);
  pruneVolumes = (options: { all: boolean }) => this.parts.volumes.prune(options.all);

  info() {
    const { admission, host, pools, vms } = this.parts;
    const { stateDir, runDir, artifacts } = host.config;
    return {
      version: VERSION,
      pid: process.pid,
      stateDir,
      runDir,
      accelerator: host.accelerator,
      acceleratorReason: host.acceleratorReason,
      qemu: { path: host.qemu.path, version: host.qemu.version, kind: host.qemu.kind },
      kernelVersion: artifacts.kernel.version,
      agentBuildId: artifacts.agent.buildId,
      cgroup: host.slots.cgroups.version,
      vms: vms.list().filter((vm) => vm.pid !== null).length,
      memory: admission.describe(),
      pools: pools.describe(),
      daemonRssBytes: ownRssBytes(),
    };
  }

  diskUsage = () => diskUsage(this.parts);
  prune = () => pruneAll(this.parts);
  subscribe = (listener: (event: Event) => void) => this.parts.events.subscribe(listener);

  metrics() {
    const { admission, metrics, pools, vms } = this.parts;
    const gauge = (name: string, help: string, value: number, labels: Record<string, string> = {}) =>
      ({ name, help, type: "gauge", labels, value }) as const;
    const pooled = pools.describe().flatMap((pool) => [
      gauge("mayfly_pool_members", "Prepared QEMUs.", pool.blocked, { template: pool.templateId, kind: "blocked" }),
      gauge("mayfly_pool_members", "Prepared QEMUs.", pool.standing, { template: pool.templateId, kind: "standing" }),
      gauge("mayfly_pool_members", "Prepared QEMUs.", pool.warm, { template: pool.templateId, kind: "warm" }),
      gauge("mayfly_pool_members", "Prepared QEMUs.", Number(pool.parent), {
        template: pool.templateId,
        kind: "parent",
      }),
    ]);
    const running = vms.list().filter((vm) => vm.pid !== null);
    const health = (["starting", "healthy", "unhealthy"] as const).map((status) => {
      const count = running.filter((vm) => vm.health?.status === status).length;
      return gauge("mayfly_vms_health", "VMs that run and have a health check.", count, { status });
    });
    const vmCount = gauge("mayfly_vms_running", "VMs that run.", running.length);
    const paused = gauge("mayfly_vms_paused", "VMs that are paused because they are idle.", vms.idle.pausedCount);
    const { committedBytes, limitBytes } = admission.describe();
    const memory = [
      gauge("mayfly_memory_committed_bytes", "Memory that all VMs together could take.", committedBytes),
      gauge("mayfly_memory_limit_bytes", "Memory that all VMs together may be able to take.", limitBytes),
    ];
    const samples = [vmCount, paused, ...memory, ...health, ...pooled, ...metrics.samples()];
    return { histograms: metrics.histograms(), samples };
  }

  async close(): Promise<void> {
    const { host, imageMaker, pools, templates, vms, forkCopies } = this.parts;
    await this.snapshots.close();
    await templates.close();
    await imageMaker.close();
    await pools.closeAll();
    await vms.letGo();
    forkCopies[Symbol.dispose]();
    host.slots.close();
    host.records[Symbol.dispose]();
    this.parts.close();
  }

  async #agent(ref: string, deadline: Deadline) {
    await this.snapshots.awaken(ref, deadline);
    return this.parts.vms.running(ref).agent;
  }
}
