/** Hashes that are needed before anything else is loaded. */

/** SHA-1 of a text, in base64: the WebSocket handshake (RFC 6455, section 4.2.2) uses it. */
export function sha1Base64(text: string): string {
  return new Bun.CryptoHasher("sha1").update(text).digest("base64");
}
