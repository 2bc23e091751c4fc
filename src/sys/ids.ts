/** Making ids: UUIDv7 (RFC 9562) in lower-case base32 without padding (RFC 4648). */
import type { Id, IdPrefix } from "../contract/ids.ts";

const ALPHABET = "abcdefghijklmnopqrstuvwxyz234567";

/** A new id, e.g. `vm_agmx...`. It begins with the time, but as text ids do not sort by it: the alphabet's digits come last. */
export function newId<P extends IdPrefix>(prefix: P): Id<P> {
  return `${prefix}_${base32(Bun.randomUUIDv7("buffer"))}`;
}

/** Base32 of bytes, five bits a character, most significant first. */
export function base32(bytes: Uint8Array): string {
  let text = "";
  let bits = 0;
  let value = 0;
  for (const byte of bytes) {
    value = ((value << 8) | byte) & 0xfff;
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      text += ALPHABET[(value >> bits) & 31];
    }
  }
  return bits > 0 ? text + ALPHABET[(value << (5 - bits)) & 31] : text;
}

/** Bytes from the host's generator. */
export function randomBytes(count: number): Uint8Array {
  return crypto.getRandomValues(new Uint8Array(count));
}
