/** What exists and who owns it, in SQLite: VMs, QEMU processes, templates, images. */
import type { Image, Vm } from "../contract/api.ts";
import { Database } from "../sys/database.ts";
import type { ProcessIdentity } from "../sys/process.ts";

const MIGRATIONS = [
  `CREATE TABLE vms (id TEXT PRIMARY KEY, document TEXT NOT NULL);
   CREATE TABLE qemus (pid INTEGER NOT NULL, start_ticks INTEGER NOT NULL, boot_id TEXT NOT NULL, slot INTEGER NOT NULL,
     PRIMARY KEY (pid, start_ticks, boot_id));
   CREATE TABLE templates (id TEXT PRIMARY KEY, name TEXT, last_used_at TEXT);
   CREATE TABLE images (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, document TEXT NOT NULL);
   CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);`,
];

/** A VM as recorded: what is shown of it, and what its next daemon needs. */
export interface VmRecord {
  vm: Vm;
  /** The QEMU process it runs in, while it runs. */
  qemu: { identity: ProcessIdentity; slot: number } | null;
  /** Its main process in the agent, to go on with after a restart. */
  main: { object: number; pid: number } | null;
  /** Milliseconds since 1970 at which its main process is killed, if it has a time limit. */
  killAtMs: number | null;
  /** Memory file of its template, to tell the guest's part of its memory. */
  memoryPath: string;
}

/** A QEMU process as recorded. */
export interface RecordedQemu {
  identity: ProcessIdentity;
  slot: number;
}

/** A template's entry: the manifest on disk has the rest. */
export interface TemplateEntry {
  id: string;
  name: string | null;
  lastUsedAt: string | null;
}

/** The database of one state directory. */
export class Records implements Disposable {
  readonly #database: Database;

  constructor(path: string) {
    this.#database = new Database(path, MIGRATIONS);
  }

  vms(): VmRecord[] {
    return this.#database.all("SELECT document FROM vms ORDER BY id").map((row) => JSON.parse(String(row["document"])));
  }

  putVm(record: VmRecord): void {
    this.#database.run(
      "INSERT INTO vms (id, document) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET document = excluded.document",
      record.vm.id,
      JSON.stringify(record),
    );
  }

  removeVm(id: string): void {
    this.#database.run("DELETE FROM vms WHERE id = ?", id);
  }

  qemus(): RecordedQemu[] {
    return this.#database.all("SELECT * FROM qemus").map((row) => ({
      identity: { pid: Number(row["pid"]), startTicks: Number(row["start_ticks"]), bootId: String(row["boot_id"]) },
      slot: Number(row["slot"]),
    }));
  }

  addQemu({ identity, slot }: RecordedQemu): void {
    const { pid, startTicks, bootId } = identity;
    this.#database.run("INSERT OR REPLACE INTO qemus VALUES (?, ?, ?, ?)", pid, startTicks, bootId, slot);
  }

  removeQemu({ pid, startTicks, bootId }: ProcessIdentity): void {
    this.#database.run("DELETE FROM qemus WHERE pid = ? AND start_ticks = ? AND boot_id = ?", pid, startTicks, bootId);
  }

  templates(): TemplateEntry[] {
    return this.#database.all("SELECT * FROM templates").map((row) => ({
      id: String(row["id"]),
      name: row["name"] === null ? null : String(row["name"]),
      lastUsedAt: row["last_used_at"] === null ? null : String(row["last_used_at"]),
    }));
  }

  putTemplate({ id, name, lastUsedAt }: TemplateEntry): void {
    this.#database.run("INSERT OR REPLACE INTO templates VALUES (?, ?, ?)", id, name ?? null, lastUsedAt ?? null);
  }

  removeTemplate(id: string): void {
    this.#database.run("DELETE FROM templates WHERE id = ?", id);
  }

  images(): Image[] {
    return this.#database
      .all("SELECT document FROM images ORDER BY name")
      .map((row) => JSON.parse(String(row["document"])));
  }

  putImage(image: Image): void {
    this.#database.run("INSERT OR REPLACE INTO images VALUES (?, ?, ?)", image.id, image.name, JSON.stringify(image));
  }

  removeImage(id: string): void {
    this.#database.run("DELETE FROM images WHERE id = ?", id);
  }

  setting(name: string): string | undefined {
    const row = this.#database.all("SELECT value FROM settings WHERE name = ?", name)[0];
    return row === undefined ? undefined : String(row["value"]);
  }

  putSetting(name: string, value: string): void {
    this.#database.run("INSERT OR REPLACE INTO settings VALUES (?, ?)", name, value);
  }

  [Symbol.dispose](): void {
    this.#database[Symbol.dispose]();
  }
}
