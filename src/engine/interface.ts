/** What the engine offers to the daemon. `open.ts` makes one; the daemon only translates between this and REST. */
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
  ImageDetails,
  ImportImageRequest,
  LoadImageRequest,
  PoolRequest,
  PruneImagesRequest,
  PruneResult,
  PullImageRequest,
  RefreshResult,
  SystemInfo,
  Template,
  VerifyResult,
  Vm,
  VmChange,
  VmProcess,
  VmStats,
  Volume,
} from "../contract/api.ts";
import type { Deadline } from "../sys/deadline.ts";
import type { SnapshotEngine } from "./snapshot-interface.ts";

/** Where output came from: 1 stdout (and terminals), 2 stderr. */
export type OutputChannel = 1 | 2;

/** Takes a process' output. */
export interface OutputSink {
  /** The chunk is only valid during the call unless copied. Resolves when it is kept: only then the guest may send more. */
  output(channel: OutputChannel, chunk: Uint8Array): Promise<void> | undefined;
}

/** How a process ended: code as a shell reports it (128 + signal), signal 0 if none. */
export interface ExitStatus {
  exitCode: number;
  signal: number;
}

/** A process in a VM, seen by one client. */
export interface ProcessSession {
  /** Resolves when there is room for more (back-pressure). */
  write(bytes: Uint8Array): Promise<void>;
  closeInput(): void;
  resize(rows: number, columns: number): void;
  signal(signal: number): void;
  /** Resolves after all output has been given to the sink. Rejects when the VM ends otherwise. */
  readonly exited: Promise<ExitStatus>;
  /** The client is gone: output is no longer given to its sink. The process goes on. */
  detach(): void;
}

/** Options of what may have to build a template first. */
export interface ProgressOptions {
  onProgress?: (step: string) => void;
  /** Lines that programs print, of what runs them for its caller. */
  onOutput?: (line: string) => void;
  deadline: Deadline;
}

/** What came of a pull. */
export interface PulledImage {
  image: Image;
  /** Nothing was fetched: the registry has what was here. */
  unchanged: boolean;
}

/** An archive on the disk of the store. */
export interface ReceivedArchive extends AsyncDisposable {
  path: string;
}

/** A chunk of a VM's kept output. */
export interface LogChunk {
  channel: OutputChannel;
  chunk: Uint8Array;
}

/** A histogram with cumulative buckets, in seconds. */
export interface HistogramSnapshot {
  name: string;
  help: string;
  labels: Readonly<Record<string, string>>;
  buckets: readonly { le: number; count: number }[];
  sum: number;
  count: number;
}

/** A counter or gauge. */
export interface SampleSnapshot {
  name: string;
  help: string;
  type: "counter" | "gauge";
  labels: Readonly<Record<string, string>>;
  value: number;
}

/** `ref` everywhere is an id, a name, or an unambiguous prefix of an id's random part. */
export interface Engine {
  /** Starts a VM; with a command, also its main process, whose output goes to `sink` (and to the logs unless autoRemove). */
  createVm(
    request: CreateVmRequest,
    options: ProgressOptions & { sink?: OutputSink },
  ): Promise<{ vm: Vm; process: ProcessSession | undefined }>;
  listVms(): Vm[];
  getVm(ref: string): Vm;
  exec(ref: string, request: ExecRequest, sink: OutputSink, deadline: Deadline): Promise<ProcessSession>;
  /** Joins the main process. With `logs`, kept output is given first. */
  attach(ref: string, sink: OutputSink, options: { logs: boolean }): ProcessSession;
  /** Kept output; with `follow`, goes on until the VM ends or the signal fires. `tail`: only the last lines. */
  logs(ref: string, options: { follow: boolean; tail?: number; signal: AbortSignal }): AsyncIterable<LogChunk>;
  /** Sends a signal to the main process; SIGKILL without a main process ends the VM. */
  killVm(ref: string, signal: number, deadline: Deadline): Promise<Vm>;
  /** The VM's stop signal to the main process, SIGKILL after `graceMs` (the VM's own unless given). Returns when the VM has ended. */
  stopVm(ref: string, graceMs: number | undefined, deadline: Deadline): Promise<Vm>;
  removeVm(ref: string, options: { force: boolean; deadline: Deadline }): Promise<void>;
  /** Resolves when the VM has ended. */
  waitVm(ref: string, signal: AbortSignal): Promise<Vm>;
  statsVm(ref: string, deadline: Deadline): Promise<VmStats>;
  /**
   * Gives guest memory that a running VM does not use back to the host; the VM notices nothing but some short stops.
   * @throws `vm_not_running`, `not_capturable` where the host does not let the daemon at its QEMU's memory, `agent_request_failed` ...
   */
  refreshVm(ref: string, deadline: Deadline): Promise<RefreshResult>;
  /** Processes of the workload. */
  listProcesses(ref: string, deadline: Deadline): Promise<VmProcess[]>;
  /** What the container has changed of its image. */
  listChanges(ref: string, deadline: Deadline): Promise<VmChange[]>;
  /** Last part of the guest's console. */
  console(ref: string, deadline: Deadline): Promise<string>;

  readFile(
    ref: string,
    path: string,
    deadline: Deadline,
  ): Promise<{ stat: FileStat; content: AsyncIterable<Uint8Array> }>;
  writeFile(
    ref: string,
    path: string,
    content: AsyncIterable<Uint8Array>,
    options: { mode: number; uid: number; gid: number; parents: boolean; deadline: Deadline },
  ): Promise<void>;
  statFile(ref: string, path: string, deadline: Deadline): Promise<FileStat>;
  listFiles(ref: string, path: string, deadline: Deadline): Promise<FileStat[]>;
  makeDirectory(
    ref: string,
    path: string,
    options: { parents: boolean; mode: number; deadline: Deadline },
  ): Promise<void>;
  removeFile(ref: string, path: string, options: { recursive: boolean; deadline: Deadline }): Promise<void>;

  /** Checkpoints, forks and lineage. */
  readonly snapshots: SnapshotEngine;

  listTemplates(): Template[];
  getTemplate(ref: string): Template;
  buildTemplate(request: BuildTemplateRequest, options: ProgressOptions): Promise<Template>;
  /** Has a template keep so many prepared ones, from now on and after restarts. */
  resizePool(ref: string, sizes: PoolRequest): Promise<Template>;
  verifyTemplate(ref: string, deadline: Deadline): Promise<VerifyResult>;
  removeTemplate(ref: string, options: { force: boolean }): Promise<void>;

  listImages(): Image[];
  getImage(ref: string): Image;
  /** With the whole OCI configuration, which is read from the disk. */
  inspectImage(ref: string): Promise<ImageDetails>;
  importImage(request: ImportImageRequest, options: ProgressOptions): Promise<Image>;
  pullImage(request: PullImageRequest, options: ProgressOptions): Promise<PulledImage>;
  /** All images of an archive. */
  loadImage(request: LoadImageRequest, options: ProgressOptions): Promise<Image[]>;
  /** Keeps an archive that is sent until it has been loaded: disposing it removes it. */
  receiveArchive(content: AsyncIterable<Uint8Array>): Promise<ReceivedArchive>;
  /** One entry for each name that it gets. */
  buildImage(request: BuildImageRequest, options: ProgressOptions): Promise<Image[]>;
  tagImage(ref: string, name: string): Promise<Image>;
  /** @returns the names that went. */
  removeImage(ref: string, options?: { force: boolean }): Promise<string[]>;
  pruneImages(request: PruneImagesRequest): Promise<PruneResult>;

  listVolumes(): Volume[];
  /** Volumes go by their names alone. */
  getVolume(name: string): Volume;
  createVolume(request: CreateVolumeRequest): Promise<Volume>;
  resizeVolume(name: string, sizeBytes: number): Promise<Volume>;
  removeVolume(name: string): Promise<void>;
  /** Removes volumes that no VM has: those that nobody named, or all of them. */
  pruneVolumes(options: { all: boolean }): Promise<PruneResult>;

  info(): SystemInfo;
  diskUsage(): Promise<DiskUsage>;
  prune(deadline: Deadline): Promise<PruneResult>;
  subscribe(listener: (event: Event) => void): () => void;
  metrics(): { histograms: HistogramSnapshot[]; samples: SampleSnapshot[] };
  /** Stops serving: pools are emptied, records closed. Running VMs go on and are adopted by the next daemon. */
  close(): Promise<void>;
}
