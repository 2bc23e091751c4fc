/** For tests: what an engine has left on the host. */
import { Database } from "bun:sqlite";
import { readdirSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { processesMentioning } from "./engine-host.ts";

/** Everything that should not be there, by kind. */
export interface Leftovers {
  /** QEMUs beyond those of running VMs and pools, as `pid command`. */
  processes: string[];
  /** Directories of QEMUs in the run directory. */
  directories: string[];
  /** Control groups of QEMUs. */
  groups: string[];
  /** Rows of QEMUs and VMs in the database. */
  rows: string[];
  /** What an interrupted publishing or import would leave. */
  unfinished: string[];
  /** Descriptors that this process has more than at the mark. */
  descriptors: string[];
}

/** When all is well. */
export const NOTHING_LEFT: Leftovers = {
  processes: [],
  directories: [],
  groups: [],
  rows: [],
  unfinished: [],
  descriptors: [],
};

/** What there may be. */
export interface Expected {
  /** QEMUs of running VMs and of pools. */
  owned: number;
  /** VMs that are recorded. */
  records: number;
  /** Descriptors of this process before; absent: not looked at. */
  descriptors: ReadonlyMap<number, string> | undefined;
}

/** Where an engine keeps what it has. */
export interface Places {
  stateDir: string;
  runDir: string;
  group: string;
}

/** Looks once. */
export function leftoversOf({ stateDir, runDir, group }: Places, expected: Expected): Leftovers {
  const { owned } = expected;
  const beyond = (names: string[], count = owned) => (names.length > count ? names : []);
  const rows = databaseRows(join(stateDir, "mayfly.db"));
  const processes = [...processesMentioning(`${stateDir}/`)].map(
    ([pid, command]) => `${pid} ${command.slice(0, 40).join(" ")}`,
  );
  return {
    processes: beyond(processes),
    directories: beyond(namesIn(join(runDir, "q"))),
    groups: beyond(groupsBelow(group)),
    rows: [...beyond(rows.qemus), ...beyond(rows.vms, expected.records)],
    unfinished: ["templates", "images/sha256", "volumes", "directories", "scratch"].flatMap((name) =>
      namesIn(join(stateDir, name)).filter((entry) => entry.startsWith(".")),
    ),
    descriptors: descriptorsBeyond(expected.descriptors),
  };
}

/** Control groups below an engine's own, over all hierarchies, each once. */
function groupsBelow(group: string): string[] {
  const tops = ["/sys/fs/cgroup", ...namesIn("/sys/fs/cgroup").map((name) => join("/sys/fs/cgroup", name))];
  return [...new Set(tops.flatMap((top) => namesIn(join(top, group)).filter((name) => /^q\d+$/.test(name))))];
}

function databaseRows(path: string): { qemus: string[]; vms: string[] } {
  const database = new Database(path);
  try {
    const rows = (sql: string) =>
      database
        .query(sql)
        .all()
        .map((row) => JSON.stringify(row));
    return { qemus: rows("SELECT pid, slot FROM qemus"), vms: rows("SELECT id FROM vms") };
  } finally {
    database.close(true);
  }
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory).sort();
  } catch {
    return [];
  }
}

/** What the descriptors of this process are open on, by number; the one with which they are read is left out. */
export function ownDescriptors(): Map<number, string> {
  const all = new Map<number, string>();
  for (const name of readdirSync("/proc/self/fd")) {
    try {
      all.set(Number(name), readlinkSync(`/proc/self/fd/${name}`));
    } catch {
      // Gone meanwhile, as the directory's own is.
    }
  }
  return all;
}

/** Only when there are more of them than before; which ones is a guess, since numbers are used again. */
function descriptorsBeyond(before: ReadonlyMap<number, string> | undefined): string[] {
  const now = ownDescriptors();
  if (before === undefined || now.size <= before.size) return [];
  return [...now].filter(([fd]) => !before.has(fd)).map(([fd, target]) => `${fd} ${target}`);
}
