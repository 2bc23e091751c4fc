/** The bearer token of the TCP listener. */
import { createHash, timingSafeEqual } from "node:crypto";
import { MayflyError } from "../contract/errors.ts";
import { readSecret } from "../sys/secret.ts";
import type { Gate } from "./dispatch.ts";

/** Shortest token taken, in characters. */
export const TOKEN_LENGTH_MIN = 16;

/**
 * Reads a token from a file that only its owner can read.
 * @throws `invalid_argument` when others can read it, or when it is too short.
 */
export async function readToken(path: string): Promise<string> {
  const { text, mode } = await readSecret(path);
  if ((mode & 0o077) !== 0) {
    throw new MayflyError(
      "invalid_argument",
      `Cannot use the token in ${path}: its mode is ${(mode & 0o777).toString(8)}, and others may read or write it; 600 is needed`,
      { details: { path, remedy: `chmod 600 ${path}` } },
    );
  }
  return checkToken(text.trim(), path);
}

/** @throws `invalid_argument` when a token is too short to be one. */
export function checkToken(token: string, source: string): string {
  if (token.length >= TOKEN_LENGTH_MIN && /^[\x21-\x7e]+$/.test(token)) return token;
  throw new MayflyError(
    "invalid_argument",
    `Cannot use the token in ${source}: it has ${token.length} characters, at least ${TOKEN_LENGTH_MIN} printable ones are needed`,
  );
}

/** Lets requests pass that carry the token. The comparison's time does not depend on what was sent. */
export function tokenGate(token: string): Gate {
  const expected = digest(token);
  return (request) => {
    const sent = /^Bearer +(\S+) *$/i.exec(request.headers.get("authorization") ?? "")?.[1];
    if (sent !== undefined && timingSafeEqual(digest(sent), expected)) return;
    const reason = sent === undefined ? "it has no bearer token" : "its bearer token is not this daemon's";
    throw new MayflyError("unauthorized", `Cannot take the request: ${reason}`);
  };
}

function digest(token: string): Buffer {
  return createHash("sha256").update(token).digest();
}
