/** SQLite behind the few calls that the records need. */
import { Database as Sqlite, type Statement } from "bun:sqlite";
import { closeSync, openSync } from "node:fs";

/** Values that a statement takes. */
export type SqlValue = string | number | null;

/** An open database in WAL mode: a crash loses at most what was not yet acknowledged, never the file. */
export class Database implements Disposable {
  readonly #sqlite: Sqlite;
  readonly #statements = new Map<string, Statement>();

  /** Opens or makes the file, which only its owner may read, and applies the migrations it has not seen, in order, each in a transaction. */
  constructor(path: string, migrations: readonly string[]) {
    closeSync(openSync(path, "a", 0o600));
    this.#sqlite = new Sqlite(path, { create: true, strict: true });
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

  /** Runs a statement. */
  run(sql: string, ...values: SqlValue[]): void {
    this.#prepare(sql).run(...values);
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
