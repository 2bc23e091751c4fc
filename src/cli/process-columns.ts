/** Columns of `top` as ps(1) prints and names them. */
import type { VmProcess } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import { nearest } from "./suggest.ts";

/** What some columns need besides the process. */
export interface ColumnContext {
  nowMs: number;
  /** Memory of the VM, for shares of it. */
  memoryBytes: number;
}

/** A column: its heading and its text. */
export interface ProcessColumn {
  heading: string;
  text(process: VmProcess, context: ColumnContext): string;
}

type Text = ProcessColumn["text"];

const KIB = 1024;
const DAY_MS = 86_400_000;
const two = (number: number) => String(Math.floor(number)).padStart(2, "0");

/** `[DD-]HH:MM:SS` of the CPU. */
const cpuTime: Text = ({ cpuMs }) => clock(cpuMs, true);
/** `[[DD-]HH:]MM:SS` since the start. */
const elapsed: Text = ({ elapsedMs }) => clock(elapsedMs, false);
const percent = (part: number, whole: number) => (whole <= 0 ? 0 : (100 * part) / whole);
const cpuShare = ({ cpuMs, elapsedMs }: VmProcess) => Math.min(percent(cpuMs, elapsedMs), 999);
const terminal: Text = ({ tty }) => tty ?? "?";
const user: Text = (process) => process.user;
const residentKib: Text = ({ residentBytes }) => String(Math.round(residentBytes / KIB));
/** One that has no arguments is shown by its name in brackets, as ps does. */
const commandLine: Text = ({ command, name }) => (command.length === 0 ? `[${name}]` : command.join(" "));

const COLUMNS: Readonly<Record<string, ProcessColumn>> = {
  pid: { heading: "PID", text: ({ pid }) => String(pid) },
  ppid: { heading: "PPID", text: ({ ppid }) => String(ppid) },
  pgid: { heading: "PGID", text: ({ pgid }) => String(pgid) },
  sid: { heading: "SID", text: ({ sid }) => String(sid) },
  uid: { heading: "UID", text: ({ uid }) => String(uid) },
  user: { heading: "USER", text: user },
  c: { heading: "C", text: (process) => String(Math.floor(cpuShare(process))) },
  pcpu: { heading: "%CPU", text: (process) => cpuShare(process).toFixed(1) },
  pmem: {
    heading: "%MEM",
    text: ({ residentBytes }, { memoryBytes }) => percent(residentBytes, memoryBytes).toFixed(1),
  },
  vsz: { heading: "VSZ", text: ({ virtualBytes }) => String(Math.round(virtualBytes / KIB)) },
  rss: { heading: "RSS", text: residentKib },
  tty: { heading: "TTY", text: terminal },
  s: { heading: "S", text: ({ state }) => state },
  stat: { heading: "STAT", text: stateWithFlags },
  stime: { heading: "STIME", text: startOf },
  start: { heading: "START", text: startOf },
  time: { heading: "TIME", text: cpuTime },
  etime: { heading: "ELAPSED", text: elapsed },
  ni: { heading: "NI", text: ({ nice }) => String(nice) },
  nlwp: { heading: "NLWP", text: ({ threads }) => String(threads) },
  comm: { heading: "COMMAND", text: ({ name }) => name },
  args: { heading: "COMMAND", text: commandLine },
  cmd: { heading: "CMD", text: commandLine },
};

/** Other names that ps has for the same columns. */
const ALIASES: Readonly<Record<string, string>> = {
  ...{
    euid: "uid",
    euser: "user",
    ruser: "user",
    "%cpu": "pcpu",
    "%mem": "pmem",
    vsize: "vsz",
    rssize: "rss",
    tt: "tty",
  },
  ...{
    tname: "tty",
    state: "s",
    cputime: "time",
    nice: "ni",
    thcount: "nlwp",
    ucmd: "comm",
    ucomm: "comm",
    command: "args",
  },
  ...{ pgrp: "pgid", sess: "sid", session: "sid", start_time: "stime", bsdstart: "start" },
};

const FULL = ["uid", "pid", "ppid", "c", "stime", "tty", "time", "cmd"];
const BSD = ["user", "pid", "pcpu", "pmem", "vsz", "rss", "tty", "stat", "start", "time", "args"];

/**
 * The columns that ps options ask for: none and `-ef` are the full format, `aux` is BSD's, `-o LIST` names them.
 * @throws MayflyError `invalid_argument`.
 */
export function processColumns(options: readonly string[]): ProcessColumn[] {
  const named: string[] = [];
  let format = FULL;
  for (let at = 0; at < options.length; at++) {
    const option = options[at] ?? "";
    const { isBsd, list } = readOption(option);
    if (isBsd) format = BSD;
    if (list !== undefined) named.push(list === "" ? (options[++at] ?? "") : list);
  }
  const names = named.flatMap((text) => text.split(/[\s,]+/)).filter((name) => name !== "");
  if (names.length > 0) return names.map(columnOf);
  // In the full format the column UID has names.
  return format.map((name) => (format === FULL && name === "uid" ? { heading: "UID", text: user } : columnOf(name)));
}

/** One option: whether it asks for BSD's format, and what follows an `o` in it ("": the next word). @throws `invalid_argument`. */
function readOption(option: string): { isBsd: boolean; list: string | undefined } {
  const long = /^--format(?:=(.*))?$/s.exec(option);
  if (long !== null) return { isBsd: false, list: long[1] ?? "" };
  const [, letters = "", list] = /^-?([eAafxduw]*)(?:o(.*))?$/s.exec(option) ?? [];
  const isUser = option === "-u";
  if ((letters === "" && list === undefined) || isUser) throw unknownOption(option);
  return { isBsd: letters.includes("u"), list };
}

function columnOf(name: string): ProcessColumn {
  const lower = name.toLowerCase();
  const own = ALIASES[lower] ?? lower;
  const column = Object.hasOwn(COLUMNS, own) ? COLUMNS[own] : undefined;
  if (column !== undefined) return column;
  const near = nearest(lower, [...Object.keys(COLUMNS), ...Object.keys(ALIASES)]);
  throw new MayflyError(
    "invalid_argument",
    `top: there is no column ${JSON.stringify(name)}${near === undefined ? "" : ` (did you mean ${near}?)`}; there are ${Object.keys(COLUMNS).join(", ")}`,
  );
}

function unknownOption(option: string): MayflyError {
  return new MayflyError(
    "invalid_argument",
    `top: ${JSON.stringify(option)} is none of the options of ps that it knows`,
    {
      details: { remedy: "use -ef, aux, or -o with columns, e.g. -o pid,user,args" },
    },
  );
}

/** As ps has it: `HH:MM` of today, else the day, else the year. */
function startOf({ startedAt }: VmProcess, { nowMs }: ColumnContext): string {
  const start = new Date(startedAt);
  const now = new Date(nowMs);
  const months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
  if (start.toDateString() === now.toDateString()) return `${two(start.getHours())}:${two(start.getMinutes())}`;
  if (Math.abs(nowMs - start.getTime()) > 365 * DAY_MS) return String(start.getFullYear());
  return `${months[start.getMonth()]}${two(start.getDate())}`;
}

function stateWithFlags({ state, nice, pid, sid, threads }: VmProcess): string {
  const priority = nice < 0 ? "<" : nice > 0 ? "N" : "";
  return `${state}${priority}${sid === pid ? "s" : ""}${threads > 1 ? "l" : ""}`;
}

function clock(ms: number, withHours: boolean): string {
  const seconds = Math.floor(ms / 1000);
  const days = Math.floor(seconds / 86_400);
  const hours = Math.floor(seconds / 3600) % 24;
  const rest = `${two((seconds / 60) % 60)}:${two(seconds % 60)}`;
  if (days > 0) return `${days}-${two(hours)}:${rest}`;
  return withHours || hours > 0 ? `${two(hours)}:${rest}` : rest;
}
