/** What the agent's survey prints (docs/AGENT-PROTOCOL.md), decoded with every length and number checked. */
import { PayloadReader, violation } from "./wire.ts";

const PROCESSES_MAGIC = 0x53_50_46_4d;
const CHANGES_MAGIC = 0x48_43_46_4d;

/** A process of the workload. */
export interface SurveyedProcess {
  pid: number;
  ppid: number;
  pgid: number;
  sid: number;
  /** Device number of its terminal, 0 for none. */
  terminal: number;
  uid: number;
  nice: number;
  threads: number;
  cpuMs: number;
  /** Since the guest booted. */
  startedMs: number;
  virtualBytes: number;
  residentBytes: number;
  state: string;
  name: string;
  /** Separated by NUL bytes. */
  commandLine: string;
}

/** All processes of the workload at a time. */
export interface SurveyedProcesses {
  /** Milliseconds since 1970, and since the guest booted. */
  realtimeMs: number;
  uptimeMs: number;
  processes: SurveyedProcess[];
}

/** An entry of the upper directory of a container's root, or one that it hides. */
export interface SurveyedChange {
  path: string;
  isDirectory: boolean;
  isDeleted: boolean;
  /** The image has something there; whether that is a directory. */
  inImage: boolean;
  directoryInImage: boolean;
  /** Type, mode, user and group are as in the image. */
  sameOwner: boolean;
  sameTime: boolean;
  /** It is too deep: what is in it is not told. */
  isCut: boolean;
  /** Another one when what is there was written, changed or replaced since: its inode's number, size and ctime. */
  stamp: string;
}

/** Processes as `processes` prints them. @throws `agent_protocol_violation`. */
export function decodeProcesses(bytes: Uint8Array): SurveyedProcesses {
  const reader = new PayloadReader(bytes, "the survey of processes");
  magic(reader, PROCESSES_MAGIC);
  const ticksPerSecond = reader.u32();
  if (ticksPerSecond === 0) throw violation("its clock has no ticks");
  const realtimeMs = Number(reader.u64() / 1_000_000n);
  const uptimeMs = Number(reader.u64() / 1_000_000n);
  const ms = (ticks: number) => Math.round((ticks * 1000) / ticksPerSecond);
  const processes = records(reader, "a process", (record) => decodeProcess(record, ms));
  return { realtimeMs, uptimeMs, processes };
}

/** Changes as `changes` prints them. @throws `agent_protocol_violation`. */
export function decodeChanges(bytes: Uint8Array): SurveyedChange[] {
  const reader = new PayloadReader(bytes, "the survey of changes");
  magic(reader, CHANGES_MAGIC);
  return records(reader, "a change", (record) => {
    const flags = record.u8();
    const has = (bit: number) => (flags & bit) !== 0;
    const stamp = [record.u64(), record.u64(), record.u64()].join();
    return {
      path: text(record),
      stamp,
      isDirectory: has(1),
      isDeleted: has(2),
      inImage: has(4),
      directoryInImage: has(8),
      sameOwner: has(16),
      sameTime: has(32),
      isCut: has(64),
    };
  });
}

function decodeProcess(record: PayloadReader, ms: (ticks: number) => number): SurveyedProcess {
  return {
    pid: record.u32(),
    ppid: record.u32(),
    pgid: record.u32(),
    sid: record.u32(),
    terminal: record.u32(),
    uid: record.u32(),
    nice: record.i32(),
    threads: record.u32(),
    cpuMs: ms(record.u53()),
    startedMs: ms(record.u53()),
    virtualBytes: record.u53(),
    residentBytes: record.u53(),
    state: String.fromCharCode(record.u8()),
    name: text(record),
    commandLine: text(record),
  };
}

function magic(reader: PayloadReader, expected: number): void {
  const found = reader.u32();
  if (found !== expected) throw violation(`a survey begins with ${found}, not with ${expected}`);
}

/** Records up to the one of length 0, behind which their number stands. */
function records<T>(reader: PayloadReader, what: string, decode: (record: PayloadReader) => T): T[] {
  const all: T[] = [];
  for (let length = reader.u32(); length > 0; length = reader.u32()) {
    if (length > reader.left) throw violation(`${what} of a survey ends before its ${length} bytes`);
    const record = new PayloadReader(reader.raw(length), what);
    all.push(decode(record));
    record.end();
  }
  const count = reader.u32();
  if (count !== all.length) throw violation(`a survey counts ${count} records, it has ${all.length}`);
  reader.end();
  return all;
}

/** Counted bytes, which may have NUL bytes among them; what is not UTF-8 becomes U+FFFD. */
function text(record: PayloadReader): string {
  return Buffer.from(record.raw(record.u16())).toString("utf8");
}
