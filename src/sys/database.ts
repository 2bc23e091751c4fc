/** SQLite behind the few calls that the records need. */
import { SQLiteError, Database as Sqlite, type Statement } from "bun:sqlite";
import { closeSync, openSync } from "node:fs";
import { MayflyError } from "../contract/errors.ts";
import { diskFull } from "./publish.ts";

/** Values that a statement takes. */
export type SqlValue = string | number | null;

/** An open database in WAL mode: a crash loses at most what was not yet acknowledged, never the file. */
export class Database implements Disposable {
  readonly #path: string;
  readonly #sqlite: Sqlite;
  readonly #statements = new Map<string, Statement>();

  /** Opens or makes the file, which only its owner may read, and applies the migrations it has not seen, in order, each in a transaction. @throws `disk_full`. */
  constructor(path: string, migrations: readonly string[]) {
    this.#path = path;
    this.#sqlite = typed(path, () => open(path));
    try {
      typed(path, () => this.#migrate(migrations));
    } catch (error) {
      this.#sqlite.close();
      throw error;
    }
  }

  #migrate(migrations: readonly string[]): void {
    this.#sqlite.run("PRAGMA journal_mode = WAL");
    this.#sqlite.run("PRAGMA synchronous = NORMAL");
    const version = this.#version();
    migrations.slice(version).forEach((sql, index) => {
      this.#sqlite.transaction(() => {
        this.#sqlite.run(sql);
        this.#sqlite.run(`PRAGMA user_version = ${version + index + 1}`);
      })();
    });
  }

  #version(): number {
    const row = this.#sqlite.query("PRAGMA user_version").get();
    return typeof row === "object" && row !== null && "user_version" in row ? Number(row.user_version) : 0;
  }

  /** Runs a statement. @throws `disk_full`. */
  run(sql: string, ...values: SqlValue[]): void {
    typed(this.#path, () => this.#prepare(sql).run(...values));
  }

  /** All rows of a query, as objects by column. */
  all(sql: string, ...values: SqlValue[]): Record<string, SqlValue>[] {
    return this.#prepare(sql).all(...values) as Record<string, SqlValue>[];
  }

  #prepare(sql: string): Statement {
    const known = this.#statements.get(sql);
    if (known !== undefined) return known;
    const statement = this.#sqlite.query(sql);
    this.#statements.set(sql, statement);
    return statement;
  }

  [Symbol.dispose](): void {
    for (const statement of this.#statements.values()) statement.finalize();
    this.#sqlite.close();
  }
}

function open(path: string): Sqlite {
  closeSync(openSync(path, "a", 0o600));
  return new Sqlite(path, { create: true, strict: true });
}

/** Turns what SQLite and the file system say of a full disk into `disk_full`. */
function typed<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof SQLiteError) || error.code !== "SQLITE_FULL") throw diskFull(error, path);
    throw new MayflyError("disk_full", `Cannot write ${path}: no space left on its file system`, {
      details: { path },
      cause: error,
    });
  }
}
