/** How tarballs are compressed, told by their first bytes and not by what anybody calls them. */

import { createHash } from "node:crypto";
import { MayflyError } from "../contract/errors.ts";
import { readStart } from "../sys/paths.ts";
import { pipeTools } from "../sys/pipeline.ts";

/** Programs that decompress to standard output, by the first bytes of the file. */
const COMPRESSIONS: readonly { magic: readonly number[]; command: readonly string[] }[] = [
  { magic: [0x1f, 0x8b], command: ["gzip", "-dc"] },
  { magic: [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00], command: ["xz", "-dc"] },
  { magic: [0x28, 0xb5, 0x2f, 0xfd], command: ["zstd", "-dc", "-q"] },
];
const DEADLINE_MS = 3_600_000;

/** The command that prints a file uncompressed. */
export async function decompression(path: string): Promise<string[]> {
  const start = await readStart(path, 8);
  const known = COMPRESSIONS.find(({ magic }) => magic.every((byte, at) => start[at] === byte));
  return known === undefined ? ["cat", path] : [...known.command, path];
}

/**
 * Digest of a file's uncompressed contents: a layer's "diff id".
 * @throws MayflyError `image_invalid` for more than `limitBytes`, or for what cannot be decompressed; `tool_missing`; `cancelled`.
 */
export async function uncompressedDigest(
  path: string,
  options: { limitBytes: number; label: string; signal?: AbortSignal },
): Promise<string> {
  const { label, limitBytes, ...run } = options;
  const hash = createHash("sha256");
  let bytes = 0;
  const inspect = (chunk: Uint8Array) => {
    bytes += chunk.length;
    if (bytes > limitBytes) throw invalid(label, `it unpacks to more than the limit of ${limitBytes} bytes`);
    hash.update(chunk);
    return chunk;
  };
  const result = await pipeTools({ source: await decompression(path), inspect, deadlineMs: DEADLINE_MS, ...run });
  if (result.refusal !== undefined) throw result.refusal;
  if (result.source.exitCode === 0) return `sha256:${hash.digest("hex")}`;
  throw invalid(label, `it cannot be read: ${result.source.stderrTail.split("\n").at(-1) ?? ""}`);
}

function invalid(label: string, why: string): MayflyError {
  return new MayflyError("image_invalid", `Cannot read ${label}: ${why}`);
}
