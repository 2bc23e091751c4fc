/** Hashes that are needed before anything else is loaded. */

/** SHA-1 of a text, in base64: the WebSocket handshake (RFC 6455, section 4.2.2) uses it. */
export function sha1Base64(text: string): string {
  return new Bun.CryptoHasher("sha1").update(text).digest("base64");
}

/** A quick checksum (XXH3, 64 bits) against damage, not against intent. */
export function checksum64(bytes: Uint8Array, seed = 0n): bigint {
  return BigInt.asUintN(64, Bun.hash.xxHash3(bytes, seed));
}
