/** A directory of published entries, one directory each, whose names are ids: what stores of templates and of snapshots have in common. */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { MayflyError } from "../contract/errors.ts";
import { movePath, namesIn, readBytes, removePath } from "./paths.ts";
import { exists, sweepUnfinished } from "./publish.ts";
import { fileSize } from "./store-files.ts";

/** What the entries are. */
export interface EntryKind {
  /** e.g. `template`. */
  noun: string;
  /** What their ids begin with. */
  prefix: string;
  notFound: "template_not_found" | "snapshot_not_found";
  corrupt: "template_corrupt" | "snapshot_corrupt";
}

/** The directory. */
export class Entries {
  constructor(
    readonly root: string,
    private readonly kind: EntryKind,
  ) {}

  directory(id: string): string {
    return join(this.root, id);
  }

  /** Ids of all that are published. */
  async ids(): Promise<string[]> {
    return (await namesIn(this.root)).filter((name) => name.startsWith(this.kind.prefix));
  }

  /** A small file of an entry. @throws not found, or corrupt if the file is missing or has more than `maxBytes`. */
  async read(id: string, name: string, maxBytes: number): Promise<Uint8Array> {
    const path = join(this.directory(id), name);
    const sizeBytes = await this.#size(id, name);
    if (sizeBytes > maxBytes) throw this.corrupt(id, path, `${name} has ${sizeBytes} bytes`);
    return readBytes(path);
  }

  /** Reads the saved device state. @throws not found; corrupt if it is not what the manifest says. */
  async readDeviceState(
    id: string,
    wanted: { sizeBytes: number; sha256: string },
    maxBytes: number,
  ): Promise<Uint8Array> {
    const state = await this.read(id, "device-state", maxBytes);
    const actual = sha256Of(state);
    const path = join(this.directory(id), "device-state");
    if (state.length !== wanted.sizeBytes) {
      throw this.corrupt(id, path, `device state has ${state.length} bytes, manifest requires ${wanted.sizeBytes}`);
    }
    if (actual === wanted.sha256) return state;
    throw this.corrupt(id, path, `device state has checksum ${actual}, manifest requires ${wanted.sha256}`);
  }

  /** @throws not found; corrupt if a file is missing or has another size. */
  async checkSize(id: string, name: string, wanted: number): Promise<void> {
    const bytes = await this.#size(id, name);
    if (bytes === wanted) return;
    throw this.corrupt(
      id,
      join(this.directory(id), name),
      `${name} has ${bytes} bytes, the manifest requires ${wanted}`,
    );
  }

  /** Removes an entry: renamed away first, so that it is whole or gone. What is mapped or open stays so. */
  async remove(id: string): Promise<void> {
    const away = join(this.root, `.unfinished-removed-${id}`);
    if (await exists(this.directory(id))) await movePath(this.directory(id), away);
    await removePath(away);
  }

  /** Removes what an interrupted publishing or removal has left. Only the daemon that holds the state directory may call it. */
  async sweep(): Promise<string[]> {
    return sweepUnfinished(this.root);
  }

  /** The error for an entry that cannot be used. */
  corrupt(id: string, path: string, why: string): MayflyError {
    return new MayflyError(this.kind.corrupt, `Cannot use ${this.kind.noun} ${id}: ${why}`, {
      details: { path, problems: [why] },
    });
  }

  async #size(id: string, name: string): Promise<number> {
    const path = join(this.directory(id), name);
    const sizeBytes = await fileSize(path);
    if (sizeBytes !== undefined) return sizeBytes;
    if (!(await exists(this.directory(id)))) {
      throw new MayflyError(this.kind.notFound, `There is no ${this.kind.noun} ${id}`);
    }
    throw this.corrupt(id, path, `${name} is missing`);
  }
}

/** SHA-256 of bytes, in lower-case hexadecimal. */
export function sha256Of(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
