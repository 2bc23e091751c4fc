/** A file that users get at a place of theirs: there whole, or not at all, even if this process is killed while it writes. */

import { randomBytes } from "node:crypto";
import { link, open, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { MayflyError } from "../contract/errors.ts";
import { BinaryFile } from "./binary-file.ts";
import { errnoName, nameFile } from "./libc.ts";
import { diskFull } from "./publish.ts";

/** Errnos of a file system without files that have no name. */
const NO_UNNAMED = ["EOPNOTSUPP", "EISDIR", "EINVAL", "ENOTSUP"];

/**
 * Writes a new file, root's alone; it gets its name when it is on disk. Where the file system cannot do that, a file beside it is renamed.
 * @throws `file_operation_failed` if there is something at `path`, or no directory for it; `disk_full`; whatever `write` throws.
 */
export async function writeWhole(path: string, write: (file: BinaryFile) => Promise<void>): Promise<void> {
  const directory = dirname(path);
  let beside: string | undefined;
  try {
    const unnamed = await BinaryFile.unnamed(directory).catch((error: unknown) => {
      if (NO_UNNAMED.includes(codeOf(error) ?? "")) return undefined;
      throw error;
    });
    if (unnamed === undefined) beside = join(directory, `.unfinished-${randomBytes(8).toString("hex")}`);
    await using file = unnamed ?? (await BinaryFile.create(beside ?? path));
    await write(file);
    await file.sync();
    if (beside === undefined) {
      const errno = nameFile(file.fd, path);
      if (errno !== 0) throw cannot(path, errnoName(errno));
    } else await link(beside, path);
    const place = await open(directory, "r");
    await place.sync().finally(() => place.close());
  } catch (error) {
    const code = codeOf(error);
    if (error instanceof MayflyError || code === undefined) throw error;
    const known = diskFull(error, path);
    throw known === error ? cannot(path, code, error) : known;
  } finally {
    if (beside !== undefined) await rm(beside, { force: true });
  }
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined;
}

function cannot(path: string, errno: string, cause?: unknown): MayflyError {
  const why =
    errno === "EEXIST" ? "there is something already" : errno === "ENOENT" ? "there is no such directory" : errno;
  const options = { details: { path }, ...(cause === undefined ? {} : { cause }) };
  return new MayflyError("file_operation_failed", `Cannot write ${path}: ${why}`, options);
}
