/** Request bodies, bounded. */
import { MayflyError } from "../contract/errors.ts";

/** Longest JSON document taken, in bytes: more than the largest argument list and environment. */
export const JSON_LIMIT_BYTES = 4 << 20;

/** A request whose body is longer than its route takes; answered with 413. */
export class BodyTooLarge extends MayflyError {
  constructor(limitBytes: number, bytes: number) {
    super("invalid_argument", `The request's body has ${bytes} bytes or more, at most ${limitBytes} are taken`, {
      details: { limitBytes },
    });
  }
}

/**
 * Reads a JSON document.
 * @param optional an empty body counts as `{}`.
 * @throws BodyTooLarge, or `invalid_argument` when it is no JSON.
 */
export async function readJson(request: Request, optional: boolean): Promise<unknown> {
  const bytes = await readBounded(request);
  if (bytes.length === 0 && optional) return {};
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    const reason = bytes.length === 0 ? "the body is empty" : error instanceof Error ? error.message : String(error);
    throw new MayflyError("invalid_argument", `Cannot read the request as JSON: ${reason}`);
  }
}

async function readBounded(request: Request): Promise<Uint8Array> {
  const declared = Number(request.headers.get("content-length") ?? 0);
  if (declared > JSON_LIMIT_BYTES) throw new BodyTooLarge(JSON_LIMIT_BYTES, declared);
  const parts: Uint8Array[] = [];
  let length = 0;
  for await (const part of bodyChunks(request)) {
    length += part.length;
    if (length > JSON_LIMIT_BYTES) throw new BodyTooLarge(JSON_LIMIT_BYTES, length);
    parts.push(part);
  }
  return Buffer.concat(parts);
}

/** A body as it comes, no faster than it is taken. @throws `cancelled` when the client goes away before its end. */
export async function* bodyChunks(request: Request): AsyncGenerator<Uint8Array> {
  try {
    if (request.body !== null) yield* request.body;
  } catch (error) {
    throw new MayflyError("cancelled", "The client went away before the whole body had come", { cause: error });
  }
}
