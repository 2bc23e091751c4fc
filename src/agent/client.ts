/** The host's side of one guest agent: requests, processes, files, and what makes a clone itself. */
import type { MayflyError } from "../contract/errors.ts";
import { connectUnix } from "../sys/channel.ts";
import type { Deadline } from "../sys/deadline.ts";
import { AgentConnection, type Connector } from "./connection.ts";
import { fileFailure, requestFailure } from "./failures.ts";
import type { OutputConsumer, ResumePoint } from "./object.ts";
import { PADDING_BYTES } from "./outbox.ts";
import { AgentProcess } from "./process.ts";
import * as encode from "./requests.ts";
import * as decode from "./results.ts";
import type { GuestTcp, TcpEvents, TcpTarget } from "./tcp.ts";
import { type FileConsumer, type FileRange, type FileRead, FileWriter, startFileRead } from "./transfer.ts";
import { FrameType, invalid, MAX_PING, type PayloadReader, type RequestType } from "./wire.ts";

/** How a client is opened. */
export interface AgentClientOptions {
  /** For the connection and the agent's hello. */
  deadline: Deadline;
  /**
   * Called once when the connection ends by anything but {@link AgentClient.close}: `agent_protocol_violation` (the VM has to
   * go), `agent_disconnected`, `connection_failed`, `agent_not_ready`.
   */
  onClosed?: (cause: MayflyError) => void;
}

/** What the guest's kernel keeps for what comes from the host: a ring as long as virtio-mmio allows, each with a page. */
const PORT_BUFFERS_BYTES = 1024 * 4096;
/** Frames of padding in one go. */
const PADDING_FRAMES = 8;

const NO_PAYLOAD = new Uint8Array(0);
const nothing = () => undefined;

/**
 * A connection to a guest agent. Requests made in one turn of the event loop go out in one write, in order, and the agent
 * carries them out in order, so none has to be waited for before the next is made; those made before the connection stands
 * go out with the hello. Every request throws `deadline_exceeded`, `cancelled`, or the connection's cause when it ends.
 */
export class AgentClient {
  /** Resolves with what the agent says of itself; rejects with `agent_not_ready` at the deadline. */
  readonly ready: Promise<decode.AgentHello>;
  readonly #connection: AgentConnection;

  /** @param connect makes the byte channel; see {@link open} for a socket. */
  constructor(connect: Connector, options: AgentClientOptions) {
    this.#connection = new AgentConnection(connect, options.deadline, options.onClosed);
    this.ready = this.#connection.ready;
  }

  /** Begins to connect to an agent's socket and returns at once: requests and {@link attachProcess} may follow directly. */
  static open(socketPath: string, options: AgentClientOptions): AgentClient {
    return new AgentClient((events, deadline) => connectUnix(socketPath, events, deadline), options);
  }

  /** Connects and waits for the agent's hello. @throws `connection_failed`, `agent_not_ready`, `agent_protocol_violation`. */
  static async connect(socketPath: string, options: AgentClientOptions): Promise<AgentClient> {
    const client = AgentClient.open(socketPath, options);
    await client.ready;
    return client;
  }

  /** What the agent said of itself; undefined before {@link ready}. */
  get hello(): decode.AgentHello | undefined {
    return this.#connection.hello;
  }

  /** Why the connection ended; undefined while it stands. */
  get cause(): MayflyError | undefined {
    return this.#connection.cause;
  }

  /** Processes and transfers that outlive this connection, with what has arrived of their output: where a copy of the VM goes on with them. */
  lasting(): ResumePoint[] {
    return this.#connection.lasting();
  }

  /** Ends the connection; whatever waits is rejected with `agent_disconnected`, or with `cause`. Processes in the guest go on. */
  close(cause?: MayflyError): void {
    this.#connection.close(cause);
  }

  /** Starts a command. `consumer` takes its output from the first byte on. @throws `invalid_argument` at once. */
  exec(spec: encode.ExecSpec, consumer: OutputConsumer, deadline: Deadline): AgentProcess {
    return AgentProcess.start(this.#connection, spec, consumer, deadline);
  }

  /** Like {@link exec}, for a process that no later connection wants: whoever finds it releases it (`isTransient` in `connection.ts`). */
  execTransient(spec: encode.ExecSpec, consumer: OutputConsumer, deadline: Deadline): AgentProcess {
    return AgentProcess.start(this.#connection, spec, consumer, deadline, "transient");
  }

  /** Goes on with a process of an earlier connection; only before the connection stands (directly after {@link open}). */
  attachProcess(resume: ResumePoint & { pid: number }, consumer: OutputConsumer): AgentProcess {
    return AgentProcess.attach(this.#connection, resume, consumer);
  }

  /**
   * Connects to a TCP port inside the guest. What is written goes out with the request: nothing waits for the answer.
   * @throws `limit_reached` when there are as many as there can be, `invalid_argument`, the connection's cause when it has ended. Whether the
   * guest takes it is told by `connected` and `closed`.
   */
  connect(target: TcpTarget, events: TcpEvents): GuestTcp {
    return this.#connection.tcp.open(target, events);
  }

  /** When bytes last went either way, on the clock of `nowMs`. */
  get activeAtMs(): number {
    return this.#connection.activeAtMs;
  }

  /**
   * Whether the guest owes nothing: no answer, no end of a process or transfer but of the object `main`, no word on a TCP connection on which this
   * side had the last.
   */
  isQuiet(main: number | undefined): boolean {
    return this.#connection.isQuiet(main);
  }

  /** Calls `wanted` once, just before the next frame to the agent; what it sends goes first. Undefined: not any more. */
  beforeNext(wanted: (() => void) | undefined): void {
    this.#connection.outbox.beforeNext(wanted);
  }

  /** TCP connections inside the guest that are open, or not forgotten by the agent yet. */
  get tcpConnections(): number {
    return this.#connection.tcp.size;
  }

  /** Has the agent forget an object that nobody here goes on with (`hello.objects`); a process is killed with its tree. */
  async releaseObject(object: number, deadline: Deadline): Promise<void> {
    return this.#ask(FrameType.release, NO_PAYLOAD, "release an object", nothing, deadline, object * 4);
  }

  /** Sends `bytes` (at most 1024) there and back. */
  async ping(deadline: Deadline, bytes: Uint8Array = NO_PAYLOAD): Promise<Uint8Array> {
    if (bytes.length > MAX_PING)
      throw invalid(`Cannot ping with ${bytes.length} bytes, at most ${MAX_PING} are possible`);
    return this.#ask(FrameType.ping, bytes, "answer a ping", (reader) => reader.raw(bytes.length), deadline);
  }

  /** Gives the VM its own entropy, time, machine id and name; ends *identity pending*. */
  async identity(spec: encode.IdentitySpec, deadline: Deadline): Promise<void> {
    return this.#ask(FrameType.identity, encode.encodeIdentity(spec), "set the identity", nothing, deadline);
  }

  /** Builds the container's root and namespaces: processes and files use it from then on. */
  async container(spec: encode.ContainerSpec, deadline: Deadline): Promise<void> {
    const payload = encode.encodeContainer(spec);
    return this.#ask(FrameType.container, payload, "build the container", nothing, deadline);
  }

  /**
   * Kills the container's processes and unmounts all of it; its disks' files are the host's again.
   * @param options.trim gives free blocks of the disks that are mounted writable back first.
   */
  async teardown(options: { trim?: boolean }, deadline: Deadline): Promise<void> {
    const payload = encode.encodeTeardown(options.trim === true);
    return this.#ask(FrameType.teardown, payload, "tear the container down", nothing, deadline);
  }

  /** Freezes the workload and makes the identity pending. Resolves once it is frozen. */
  async freeze(deadline: Deadline): Promise<void> {
    return this.#ask(FrameType.freeze, NO_PAYLOAD, "freeze the workload", nothing, deadline);
  }

  /** Lets the workload run; fails with EPERM while the identity is pending. */
  async thaw(deadline: Deadline): Promise<void> {
    return this.#ask(FrameType.thaw, NO_PAYLOAD, "thaw the workload", nothing, deadline);
  }

  /**
   * Lets a workload that was frozen on this connection run on as the VM that it is, with the time set and no new identity. A copy of it
   * cannot: it hears of its host on another connection, and fails with EPERM.
   */
  async goOn(realtimeNs: bigint, deadline: Deadline): Promise<void> {
    return this.#ask(FrameType.thaw, encode.encodeTime(realtimeNs), "let the workload go on", nothing, deadline);
  }

  async stats(deadline: Deadline): Promise<decode.GuestStats> {
    return this.#ask(FrameType.stats, NO_PAYLOAD, "give statistics", decode.decodeStats, deadline);
  }

  /** Sets the guest's wall-clock time (0n: only asks). @returns its clocks afterwards. */
  async time(realtimeNs: bigint, deadline: Deadline): Promise<{ realtimeNs: bigint; monotonicNs: bigint }> {
    return this.#ask(FrameType.time, encode.encodeTime(realtimeNs), "set the time", decode.decodeTime, deadline);
  }

  /** Writes back and drops the guest's caches. */
  async sync(deadline: Deadline): Promise<void> {
    return this.#ask(FrameType.sync, NO_PAYLOAD, "sync", nothing, deadline);
  }

  /**
   * Has zeroes in the buffers that the guest's kernel keeps for what comes from the host. Each message goes into the next of them and stays there until its turn
   * comes again, so a guest that was sent a thousand messages has {@link PORT_BUFFERS_BYTES} of them to itself. Other requests are held up for some
   * milliseconds at most.
   */
  async zeroPortBuffers(deadline: Deadline): Promise<void> {
    for (let sent = 0; sent < PORT_BUFFERS_BYTES; sent += PADDING_FRAMES * PADDING_BYTES) {
      for (let frame = 0; frame < PADDING_FRAMES; frame++) this.#connection.outbox.padding();
      await this.ping(deadline);
    }
  }

  /** Fills up to `maxBytes` of free memory with zeroes. @returns how many bytes were. */
  async trim(maxBytes: number, deadline: Deadline): Promise<number> {
    return this.#ask(FrameType.trim, encode.encodeTrim(maxBytes), "trim free memory", decode.decodeTrim, deadline);
  }

  /** Sets the workload's limits inside the guest. */
  async limits(spec: encode.LimitSpec, deadline: Deadline): Promise<void> {
    return this.#ask(FrameType.limits, encode.encodeLimits(spec), "set limits", nothing, deadline);
  }

  /** Gives a file's contents to `consumer`. @throws `invalid_argument` at once. */
  readFile(path: string, consumer: FileConsumer, deadline: Deadline, range: FileRange = {}): FileRead {
    return startFileRead(this.#connection, path, range, consumer, deadline);
  }

  /** Opens a file for writing; the deadline is for all of it. @throws `invalid_argument` at once. */
  writeFile(path: string, spec: encode.WriteSpec, deadline: Deadline): FileWriter {
    return new FileWriter(this.#connection, path, spec, deadline);
  }

  /** @param options.noFollow describes a final symlink itself. @throws `file_not_found`, `file_operation_failed`. */
  async stat(path: string, deadline: Deadline, options: { noFollow?: boolean } = {}): Promise<decode.FileStat> {
    const payload = encode.encodeFileStat(path, options.noFollow === true);
    return this.#askFile(FrameType.fileStat, payload, "stat", path, decode.decodeStat, deadline);
  }

  /** The entries of a directory, a page at a time as they arrive, in no order. @throws like {@link stat}. */
  async *list(path: string, deadline: Deadline): AsyncGenerator<decode.DirectoryEntry, void, void> {
    let cookie = 0n;
    do {
      const payload = encode.encodeFileList(path, cookie);
      const page = await this.#askFile(FrameType.fileList, payload, "list", path, decode.decodeList, deadline);
      yield* page.entries;
      cookie = page.cookie;
    } while (cookie !== 0n);
  }

  /** Makes a directory, with `parents` also those above it (then an existing one is no error). */
  async mkdir(path: string, deadline: Deadline, options: { parents?: boolean; mode?: number } = {}): Promise<void> {
    const payload = encode.encodeFileMkdir(path, options.parents === true, options.mode ?? 0o755);
    return this.#askFile(FrameType.fileMkdir, payload, "make the directory", path, nothing, deadline);
  }

  /** Removes a file or directory, with `recursive` what is in it too; `missingOk` makes a missing path no error. */
  async remove(
    path: string,
    deadline: Deadline,
    options: { recursive?: boolean; missingOk?: boolean } = {},
  ): Promise<void> {
    const payload = encode.encodeFileRemove(path, options.recursive === true, options.missingOk === true);
    return this.#askFile(FrameType.fileRemove, payload, "remove", path, nothing, deadline);
  }

  #ask<T>(
    type: RequestType,
    payload: Uint8Array,
    what: string,
    parse: (reader: PayloadReader) => T,
    deadline: Deadline,
    stream?: number,
  ): Promise<T> {
    const request = { type, payload, what: `the request to ${what}`, parse };
    const failure = (errno: number) => requestFailure(what, errno);
    return this.#connection.request({ ...request, failure, ...(stream === undefined ? {} : { stream }) }, deadline);
  }

  #askFile<T>(
    type: RequestType,
    payload: Uint8Array,
    what: string,
    path: string,
    parse: (reader: PayloadReader) => T,
    deadline: Deadline,
  ): Promise<T> {
    const request = { type, payload, what: `the request to ${what} ${path}`, parse };
    return this.#connection.request({ ...request, failure: (errno) => fileFailure(what, path, errno) }, deadline);
  }
}
