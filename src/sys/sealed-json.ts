/** JSON documents with a checksum of their own: manifests of templates and snapshots. */
import { createHash } from "node:crypto";
import type { z } from "zod";
import { readBytes } from "./paths.ts";

/** A kind of document. */
export interface SealedKind<T> {
  schema: z.ZodType<T>;
  /** Largest one that is read or written, in bytes. */
  maxBytes: number;
  /** Makes the error for one that cannot be used. */
  corrupt: (origin: string, problems: readonly string[]) => Error;
}

/** The document's text: JSON whose last member is the SHA-256 of the rest. */
export function sealJson(document: object): string {
  const body = JSON.stringify(document);
  return `${JSON.stringify({ ...JSON.parse(body), checksum: checksumOf(body) }, null, 2)}\n`;
}

/**
 * Reads a document.
 * @param origin path it came from, for messages.
 * @throws what `corrupt` makes, naming every problem.
 */
export function unsealJson<T>(bytes: Uint8Array, origin: string, { schema, maxBytes, corrupt }: SealedKind<T>): T {
  if (bytes.length > maxBytes) {
    throw corrupt(origin, [`it has ${bytes.length} bytes, a manifest at most ${maxBytes}`]);
  }
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    throw corrupt(origin, [`it is not JSON: ${error instanceof Error ? error.message : error}`]);
  }
  if (typeof json !== "object" || json === null || !("checksum" in json)) throw corrupt(origin, ["it has no checksum"]);
  const { checksum, ...body } = json;
  const actual = checksumOf(JSON.stringify(body));
  if (checksum !== actual) throw corrupt(origin, [`its checksum is ${checksum}, its contents have ${actual}`]);
  const parsed = schema.safeParse(body);
  if (parsed.success) return parsed.data;
  throw corrupt(
    origin,
    parsed.error.issues.map((issue) => `${issue.path.join(".") || "the whole"}: ${issue.message}`),
  );
}

/** Reads a document of a cache. @returns undefined if there is none, it was never finished, or is damaged: it is of no use then. */
export async function readCached<T>(path: string, schema: z.ZodType<T>, maxBytes: number): Promise<T | undefined> {
  const corrupt = (origin: string, problems: readonly string[]) => new Error(`${origin}: ${problems.join(", ")}`);
  try {
    return unsealJson(await readBytes(path), path, { schema, maxBytes, corrupt });
  } catch {
    return undefined;
  }
}

function checksumOf(body: string): string {
  return createHash("sha256").update(body).digest("hex");
}
