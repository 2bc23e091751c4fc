/** What the guest agent answers, decoded with every length, number and name checked. */
import {
  MAX_BUFFERED,
  MAX_CONNECTIONS,
  MAX_OBJECT_ID,
  MAX_OBJECTS,
  MAX_PAYLOAD,
  PayloadReader,
  PROTOCOL_VERSION,
  violation,
  WINDOW,
} from "./wire.ts";

/** An object that the agent knew when the connection was made. */
export interface KnownObject {
  object: number;
  kind: "process" | "file_read" | "file_write";
  /** Its EXIT follows. */
  ended: boolean;
  /** Bytes of channel 1 that the agent has kept: sending goes on from here. */
  inputKept: number;
  /** Bytes produced so far on channels 2 and 3. */
  outputEnd: number;
  errorEnd: number;
}

/** What the agent says of itself when a connection starts. */
export interface AgentHello {
  /** No workload runs until IDENTITY. */
  identityPending: boolean;
  frozen: boolean;
  /** Bytes of a stream that may be unacknowledged, either way. */
  window: number;
  maxObjects: number;
  /** Bound on the sum of unacknowledged bytes that the agent keeps. */
  maxBuffered: number;
  /** Connections at a time. */
  maxConnections: number;
  /** 32 hexadecimal digits. */
  buildId: string;
  objects: readonly KnownObject[];
}

/** How an object ended. */
export interface ExitReport {
  /** 0..255, or null when a signal ended it. */
  code: number | null;
  /** Number of the signal that ended it, or null. */
  signal: number | null;
  /** Errno of a file transfer, 0 if it is whole. */
  errno: number;
  userTimeUs: number;
  systemTimeUs: number;
  maxRssBytes: number;
  /** Length of channel 2 and channel 3, in bytes. */
  outputEnd: number;
  errorEnd: number;
}

export interface FileStat {
  /** Type and permission bits, as in `st_mode`. */
  mode: number;
  uid: number;
  gid: number;
  nlink: number;
  sizeBytes: number;
  inode: bigint;
  mtimeNs: bigint;
  rdev: bigint;
  /** Target of a symlink, else undefined. */
  target: string | undefined;
}

export interface DirectoryEntry extends FileStat {
  name: string;
}

export interface GuestStats {
  memoryTotalBytes: number;
  memoryFreeBytes: number;
  memoryAvailableBytes: number;
  workloadMemoryBytes: number;
  workloadCpuUs: number;
  workloadPids: number;
  /** Load average of one minute. */
  load1: number;
  uptimeMs: number;
  idleMs: number;
}

const KINDS = ["process", "file_read", "file_write"] as const;
/** Less than this and a command's first input could not be sent before the hello arrived. */
export const MIN_WINDOW = 65536;

function within(name: string, value: number, min: number, max: number): number {
  if (value < min || value > max) {
    throw violation(`its hello has ${name} ${value}, not ${min === max ? min : `from ${min} to ${max}`}`);
  }
  return value;
}

/** @throws `agent_protocol_violation` for another version or limits outside of the protocol's. */
export function decodeHello(payload: Uint8Array): AgentHello {
  const reader = new PayloadReader(payload, "the hello");
  within("version", reader.u16(), PROTOCOL_VERSION, PROTOCOL_VERSION);
  const flags = within("flags", reader.u16(), 0, 3);
  within("payload limit", reader.u32(), MAX_PAYLOAD, MAX_PAYLOAD);
  const window = within("window", reader.u32(), MIN_WINDOW, WINDOW);
  const maxObjects = within("object limit", reader.u32(), 1, MAX_OBJECTS);
  const maxBuffered = within("buffer limit", reader.u32(), window, MAX_BUFFERED);
  const maxConnections = within("connection limit", reader.u32(), MAX_CONNECTIONS, MAX_CONNECTIONS);
  const buildId = Buffer.from(reader.raw(16)).toString("hex");
  const count = within("object count", reader.u32(), 0, maxObjects);
  const objects: KnownObject[] = [];
  for (let i = 0; i < count; i++) objects.push(decodeKnownObject(reader));
  reader.end();
  if (new Set(objects.map((known) => known.object)).size !== count) throw violation("its hello names an object twice");
  return {
    identityPending: (flags & 1) !== 0,
    frozen: (flags & 2) !== 0,
    window,
    maxObjects,
    maxBuffered,
    maxConnections,
    buildId,
    objects,
  };
}

function decodeKnownObject(reader: PayloadReader): KnownObject {
  const object = within("object id", reader.u32(), 1, MAX_OBJECT_ID);
  const kind = KINDS[within("object kind", reader.u8(), 1, KINDS.length) - 1] ?? "process";
  const ended = within("object state", reader.u8(), 0, 1) === 1;
  reader.u16();
  return { object, kind, ended, inputKept: reader.u53(), outputEnd: reader.u53(), errorEnd: reader.u53() };
}

/** Payload of EXIT. @throws `agent_protocol_violation`. */
export function decodeExit(payload: Uint8Array): ExitReport {
  const reader = new PayloadReader(payload, "an exit");
  const code = reader.i32();
  const signal = reader.i32();
  const errno = reader.i32();
  reader.u32();
  if (code < -1 || code > 255) throw violation(`an exit has the code ${code}, not from -1 to 255`);
  if (signal < 0 || signal > 64) throw violation(`an exit has the signal ${signal}, not from 0 to 64`);
  if (errno < 0) throw violation(`an exit has the errno ${errno}`);
  const report: ExitReport = {
    code: signal === 0 ? Math.max(code, 0) : null,
    signal: signal === 0 ? null : signal,
    errno,
    userTimeUs: reader.u53(),
    systemTimeUs: reader.u53(),
    maxRssBytes: reader.u53(),
    outputEnd: reader.u53(),
    errorEnd: reader.u53(),
  };
  reader.end();
  return report;
}

/** Result of EXEC: the pid in the guest. */
export function decodePid(reader: PayloadReader): number {
  return reader.u32();
}

/** Result of FILE_READ, before the bytes. */
export function decodeOpened(reader: PayloadReader): { sizeBytes: number; mode: number } {
  return { sizeBytes: reader.u53(), mode: reader.u32() };
}

/** A stat, as FILE_STAT gives it and FILE_LIST each entry. */
export function decodeStat(reader: PayloadReader): FileStat {
  const stat = {
    mode: reader.u32(),
    uid: reader.u32(),
    gid: reader.u32(),
    nlink: reader.u32(),
    sizeBytes: reader.u53(),
    inode: reader.u64(),
    mtimeNs: reader.i64(),
    rdev: reader.u64(),
  };
  const target = reader.string();
  return { ...stat, target: target === "" ? undefined : target };
}

/** One page of a directory. Names that could lead out of it are a violation, so that they can be joined to a path. */
export function decodeList(reader: PayloadReader): { cookie: bigint; entries: DirectoryEntry[] } {
  const cookie = reader.u64();
  const entries: DirectoryEntry[] = [];
  while (reader.left > 0) {
    const stat = decodeStat(reader);
    const name = reader.string();
    if (name === "" || name === "." || name === ".." || name.includes("/")) {
      throw violation(`a directory has an entry named ${JSON.stringify(name)}`);
    }
    entries.push({ name, ...stat });
  }
  return { cookie, entries };
}

/** Result of TIME: both clocks of the guest. */
export function decodeTime(reader: PayloadReader): { realtimeNs: bigint; monotonicNs: bigint } {
  return { realtimeNs: reader.u64(), monotonicNs: reader.u64() };
}

/** Result of TRIM: bytes that were filled with zeroes. */
export function decodeTrim(reader: PayloadReader): number {
  return reader.u53();
}

/** Result of STATS. */
export function decodeStats(reader: PayloadReader): GuestStats {
  return {
    memoryTotalBytes: reader.u53(),
    memoryFreeBytes: reader.u53(),
    memoryAvailableBytes: reader.u53(),
    workloadMemoryBytes: reader.u53(),
    workloadCpuUs: reader.u53(),
    workloadPids: reader.u32(),
    load1: reader.u32() / 1000,
    uptimeMs: Number(reader.u64()) / 1e6,
    idleMs: Number(reader.u64()) / 1e6,
  };
}
