/** Files with secrets. */
import { open } from "node:fs/promises";
import { MayflyError } from "../contract/errors.ts";

/** Longest secret read, in bytes. */
const SECRET_LIMIT_BYTES = 4096;

/**
 * Text of a small file and its mode, both of the same open file.
 * @throws `invalid_argument` when it cannot be read or is too long.
 */
export async function readSecret(path: string): Promise<{ text: string; mode: number }> {
  try {
    await using file = await open(path, "r");
    const { mode, size } = await file.stat();
    if (size > SECRET_LIMIT_BYTES) throw new Error(`it has ${size} bytes, at most ${SECRET_LIMIT_BYTES} are taken`);
    return { text: await file.readFile("utf8"), mode };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new MayflyError("invalid_argument", `Cannot read the secret in ${path}: ${reason}`, {
      cause: error,
      details: { path },
    });
  }
}
