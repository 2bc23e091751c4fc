/** What exists and who owns it, in SQLite: VMs, QEMU processes, templates, images. */
import type { ExecSpec } from "../agent/requests.ts";
import {
  type CreateVmRequest,
  type Image,
  NO_NAME,
  type PoolRequest,
  type Snapshot,
  type Vm,
} from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import type { DiskFiles } from "../machine/devices/disk.ts";
import { Database } from "../sys/database.ts";
import type { ProcessIdentity } from "../sys/process.ts";
import type { CapturedHooks } from "./captured-vm.ts";
import type { ProcessDefaults } from "./container-plan.ts";
import type { HealthPlan } from "./health.ts";
import type { ResolvedUser } from "./users.ts";
import type { LogBase } from "./workload.ts";

const MIGRATIONS = [
  `CREATE TABLE vms (id TEXT PRIMARY KEY, document TEXT NOT NULL);
   CREATE TABLE qemus (pid INTEGER NOT NULL, start_ticks INTEGER NOT NULL, boot_id TEXT NOT NULL, slot INTEGER NOT NULL,
     PRIMARY KEY (pid, start_ticks, boot_id));
   CREATE TABLE templates (id TEXT PRIMARY KEY, name TEXT, last_used_at TEXT);
   CREATE TABLE images (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, document TEXT NOT NULL);
   CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);`,
  `ALTER TABLE templates ADD COLUMN pool TEXT;`,
  `CREATE TABLE restarts (id TEXT PRIMARY KEY, document TEXT NOT NULL);`,
  `CREATE TABLE snapshots (id TEXT PRIMARY KEY, name TEXT UNIQUE, document TEXT NOT NULL);`,
  `ALTER TABLE qemus ADD COLUMN owners TEXT;`,
];

/** How long what found no space waits for the next try, if nothing else is written. */
const RETRY_MS = 1_000;

/** A container as recorded: what exec and the next start of its main process need to know. */
export interface ContainerRecord {
  defaults: ProcessDefaults;
  user: ResolvedUser;
}

/** What a VM holds of the host beside its QEMU. */
export interface HeldRecord {
  /** Disks by slot, so that they can be given back. */
  disks: DiskFiles;
  /** Named volumes that are its own while it runs. */
  volumes: string[];
}

/** A VM as recorded: what is shown of it, and what its next daemon needs. */
export interface VmRecord {
  vm: Vm;
  /** The QEMU process it runs in, while it runs. */
  qemu: RecordedQemu | null;
  /** Its main process in the agent, to go on with after a restart of the daemon; pid 0: it was asked for, and has not been heard of. */
  main: { object: number; pid: number; base: LogBase } | null;
  /** Milliseconds since 1970 at which its main process is killed, if it has a time limit. */
  killAtMs: number | null;
  /** What its guest has as /etc/machine-id, 32 hexadecimal digits; null: not known. */
  machineId: string | null;
  /** Its main process as it is started again in the same guest; null: there is none. */
  again: ExecSpec | null;
  /** Memory file of its template, to tell the guest's part of its memory. */
  memoryPath: string;
  /** null: it runs in the base guest. */
  container: ContainerRecord | null;
  held: HeldRecord;
  /** What runs in copies of it before their workload goes on, where its template does not tell. */
  hooks?: CapturedHooks | null;
  /** It was suspended, and its guest may have run since with volumes that its snapshot does not have. */
  isReturning?: boolean;
  restart: RestartRecord;
  /** Milliseconds between its stop signal and SIGKILL; null: the default. */
  stopGraceMs: number | null;
  /** How its health is asked for; null: it is not. */
  health: HealthPlan | null;
}

/** How far a VM's restart policy has come. */
export interface RestartRecord {
  /** Pause before its last start again; 0: there was none. */
  pauseMs: number;
  /** Milliseconds since 1970 at which it is started again; null: it is not about to be. */
  nextAtMs: number | null;
  /** The user has ended it: the policy says nothing any more. */
  over: boolean;
}

/** A VM that has not been started again. */
export const NOT_RESTARTED: RestartRecord = { pauseMs: 0, nextAtMs: null, over: false };

/** A VM of which nothing is known yet but that it is to be. */
export function admittedRecord(vm: Vm): VmRecord {
  const nothing = {
    qemu: null,
    main: null,
    killAtMs: null,
    machineId: null,
    again: null,
    memoryPath: "",
    container: null,
  };
  const later = { held: { disks: {}, volumes: [] }, restart: NOT_RESTARTED, stopGraceMs: null, health: null };
  return { vm, ...nothing, ...later };
}

/** How a VM is started again; kept only of those with a restart policy, since it holds their environment and secrets. */
export interface RestartInstructions {
  /** As it was made, for another QEMU when its own is gone. */
  request: CreateVmRequest;
  /** Its main process; null: it has none. */
  main: ExecSpec | null;
}

/** A QEMU process as recorded. */
export interface RecordedQemu {
  identity: ProcessIdentity;
  slot: number;
  /** Slots whose uids own its user namespaces; absent: it has none of its own. */
  owners?: readonly number[] | undefined;
}

/** A template's entry: the manifest on disk has the rest. */
export interface TemplateEntry {
  id: string;
  name: string | null;
  lastUsedAt: string | null;
  /** Prepared ones that it is to keep; null: as the daemon is configured. */
  pool: PoolRequest | null;
}

/**
 * The database of one state directory. What begins is written at once or fails; what ends has ended, whether there is
 * space to write it or not: then it is written before the next write. A daemon that is killed meanwhile finds out at its
 * next start, since the process is gone.
 */
export class Records implements Disposable {
  readonly #database: Database;
  /** Writes that found no space, in order. */
  #owed: (() => void)[] = [];
  #retry: ReturnType<typeof setTimeout> | undefined;

  constructor(path: string) {
    this.#database = new Database(path, MIGRATIONS);
  }

  vms(): VmRecord[] {
    return this.#database
      .all("SELECT document FROM vms ORDER BY rowid")
      .map((row) => upToDate(JSON.parse(String(row["document"]))));
  }

  /** Records a VM that begins. @throws `disk_full`. */
  putVm(record: VmRecord): void {
    this.#now(() => this.#writeVm(record));
  }

  /** Records what has become of a VM. */
  updateVm(record: VmRecord): void {
    this.#soon(() => this.#writeVm(record));
  }

  #writeVm(record: VmRecord): void {
    this.#database.run(
      "INSERT INTO vms (id, document) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET document = excluded.document",
      record.vm.id,
      JSON.stringify(record, bigToText),
    );
  }

  removeVm(id: string): void {
    this.#soon(() => this.#database.run("DELETE FROM restarts WHERE id = ?", id));
    this.#soon(() => this.#database.run("DELETE FROM vms WHERE id = ?", id));
  }

  /** Records how a VM is to be started again, before the VM itself. @throws `disk_full`. */
  putRestart(id: string, instructions: RestartInstructions): void {
    const document = JSON.stringify(instructions, bigToText);
    this.#now(() => this.#database.run("INSERT OR REPLACE INTO restarts VALUES (?, ?)", id, document));
  }

  /** How a VM is to be started again; undefined: it is not. */
  restartOf(id: string): RestartInstructions | undefined {
    const row = this.#database.all("SELECT document FROM restarts WHERE id = ?", id)[0];
    return row === undefined ? undefined : readInstructions(String(row["document"]));
  }

  /** Forgets how VMs are started again that were never recorded themselves. */
  sweepRestarts(): void {
    this.#soon(() => this.#database.run("DELETE FROM restarts WHERE id NOT IN (SELECT id FROM vms)"));
  }

  qemus(): RecordedQemu[] {
    return this.#database.all("SELECT * FROM qemus").map((row) => ({
      identity: { pid: Number(row["pid"]), startTicks: Number(row["start_ticks"]), bootId: String(row["boot_id"]) },
      slot: Number(row["slot"]),
      owners: numbersIn(row["owners"]),
    }));
  }

  /** @throws `disk_full`. */
  addQemu({ identity, slot, owners = [] }: RecordedQemu): void {
    const { pid, startTicks, bootId } = identity;
    const sql = "INSERT OR REPLACE INTO qemus (pid, start_ticks, boot_id, slot, owners) VALUES (?, ?, ?, ?, ?)";
    this.#now(() => this.#database.run(sql, pid, startTicks, bootId, slot, owners.join(" ")));
  }

  removeQemu({ pid, startTicks, bootId }: ProcessIdentity): void {
    const sql = "DELETE FROM qemus WHERE pid = ? AND start_ticks = ? AND boot_id = ?";
    this.#soon(() => this.#database.run(sql, pid, startTicks, bootId));
  }

  templates(): TemplateEntry[] {
    return this.#database.all("SELECT * FROM templates").map((row) => ({
      id: String(row["id"]),
      name: row["name"] === null ? null : String(row["name"]),
      lastUsedAt: row["last_used_at"] === null ? null : String(row["last_used_at"]),
      pool: row["pool"] === null ? null : JSON.parse(String(row["pool"])),
    }));
  }

  putTemplate({ id, name, lastUsedAt, pool }: TemplateEntry): void {
    const sql = "INSERT OR REPLACE INTO templates (id, name, last_used_at, pool) VALUES (?, ?, ?, ?)";
    this.#soon(() => this.#database.run(sql, id, name, lastUsedAt, pool === null ? null : JSON.stringify(pool)));
  }

  removeTemplate(id: string): void {
    this.#soon(() => this.#database.run("DELETE FROM templates WHERE id = ?", id));
  }

  snapshots(): Snapshot[] {
    return this.#database
      .all("SELECT document FROM snapshots ORDER BY rowid")
      .map((row) => JSON.parse(String(row["document"])));
  }

  /** Records a snapshot that is on disk, or what has become of it. @throws `disk_full`. */
  putSnapshot(snapshot: Snapshot): void {
    const sql =
      "INSERT INTO snapshots VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET name = excluded.name, document = excluded.document";
    this.#now(() => this.#database.run(sql, snapshot.id, snapshot.name, JSON.stringify(snapshot)));
  }

  removeSnapshot(id: string): void {
    this.#soon(() => this.#database.run("DELETE FROM snapshots WHERE id = ?", id));
  }

  images(): Image[] {
    return this.#database
      .all("SELECT document FROM images ORDER BY name")
      .map((row) => JSON.parse(String(row["document"])))
      .map((image) => ({ ...image, ...LATER_IMAGE, ...image }));
  }

  /** Records images, all of them or none. A name is there once: whoever else had it must be given with another. @throws `disk_full`. */
  putImages(images: readonly Image[]): void {
    const sql = `INSERT OR REPLACE INTO images VALUES ${images.map(() => "(?, ?, ?)").join(", ")}`;
    const values = images.flatMap((image) => {
      const name = image.name === NO_NAME ? image.id : image.name;
      return [image.id, name, JSON.stringify(image)];
    });
    this.#now(() => this.#database.run(sql, ...values));
  }

  removeImage(id: string): void {
    this.#soon(() => this.#database.run("DELETE FROM images WHERE id = ?", id));
  }

  setting(name: string): string | undefined {
    const row = this.#database.all("SELECT value FROM settings WHERE name = ?", name)[0];
    return row === undefined ? undefined : String(row["value"]);
  }

  putSetting(name: string, value: string): void {
    this.#soon(() => this.#database.run("INSERT OR REPLACE INTO settings VALUES (?, ?)", name, value));
  }

  #now(write: () => void): void {
    this.#pay();
    write();
  }

  #soon(write: () => void): void {
    this.#owed.push(write);
    try {
      this.#pay();
    } catch (error) {
      if (!(error instanceof MayflyError) || error.code !== "disk_full") throw error;
      this.#retry ??= setTimeout(() => this.#tryAgain(), RETRY_MS).unref();
    }
  }

  #tryAgain(): void {
    this.#retry = undefined;
    this.#soon(() => undefined);
  }

  /** Makes the owed writes, in order. @throws `disk_full` at the first that finds no space. */
  #pay(): void {
    for (let write = this.#owed[0]; write !== undefined; write = this.#owed[0]) {
      write();
      this.#owed.shift();
    }
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#retry);
    this.#database[Symbol.dispose]();
  }
}

/** What records of earlier versions do not have. */
const LATER_VM: Partial<Vm> = {
  ...{ image: null, imageId: null, ports: [], mounts: [], restart: { name: "no" } },
  ...{ restartCount: 0, health: null, stopSignal: 15, origin: null, suspendedIn: null },
};
const LATER_IMAGE: Partial<Image> = {
  ...{ configDigest: null, manifestDigest: null, repoDigest: null, architecture: null, builtAt: null },
  ...{ layers: [], config: {} },
};
const LATER: Partial<VmRecord> = {
  ...{
    container: null,
    held: { disks: {}, volumes: [] },
    stopGraceMs: null,
    health: null,
    machineId: null,
    again: null,
  },
  restart: NOT_RESTARTED,
};

/** A record of an earlier version, completed. */
function upToDate(record: VmRecord): VmRecord {
  const main = record.main === null ? null : { ...record.main, base: record.main.base ?? { stdout: 0, stderr: 0 } };
  const again = record.again == null ? null : withBigNumbers(record.again);
  return { ...LATER, ...record, main, again, vm: { ...LATER_VM, ...record.vm } };
}

/** JSON has no such numbers. */
export function bigToText(_key: string, value: unknown): unknown {
  return typeof value === "bigint" ? String(value) : value;
}

function readInstructions(text: string): RestartInstructions {
  const { request, main }: RestartInstructions = JSON.parse(text);
  return { request, main: main === null ? null : withBigNumbers(main) };
}

/** A command that was read from JSON. */
export function withBigNumbers(main: ExecSpec): ExecSpec {
  const { capabilities, limits } = main;
  return {
    ...main,
    ...(capabilities === undefined ? {} : { capabilities: BigInt(capabilities) }),
    ...(limits === undefined
      ? {}
      : { limits: limits.map(({ resource, soft, hard }) => ({ resource, soft: BigInt(soft), hard: BigInt(hard) })) }),
  };
}

function numbersIn(column: unknown): number[] {
  return typeof column === "string" && column !== "" ? column.split(" ").map(Number) : [];
}
