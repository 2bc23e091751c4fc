/** Members of a tar file (POSIX ustar, sizes beyond 8 GiB as GNU tar has them): plain files, one after the other. */
const BLOCK = 512;
const ZERO = "0".charCodeAt(0);
const MAX_NAME = 99;

/** Header of a file. Its owner is root, its time the beginning. @param name at most 99 ASCII characters. */
export function memberHeader(name: string, sizeBytes: number): Uint8Array {
  const header = Buffer.alloc(BLOCK);
  header.write(name.slice(0, MAX_NAME), 0, "latin1");
  header.write("0000600\0", 100);
  header.write("0000000\0", 108);
  header.write("0000000\0", 116);
  if (sizeBytes < 8 ** 11) header.write(`${sizeBytes.toString(8).padStart(11, "0")}\0`, 124);
  else {
    header[124] = 0x80;
    header.writeBigUInt64BE(BigInt(sizeBytes), 128);
  }
  header.write("00000000000\0", 136);
  header[156] = ZERO;
  header.write("ustar\x0000", 257);
  header.write(`${checksum(header).toString(8).padStart(6, "0")}\0 `, 148);
  return header;
}

/** Bytes after a member up to the next header. */
export function memberPadding(sizeBytes: number): number {
  return (BLOCK - (sizeBytes % BLOCK)) % BLOCK;
}

/** Two blocks of zeroes end a tar file. */
export const END_BYTES = 2 * BLOCK;
/** Size of a header. */
export const MEMBER_HEADER_BYTES = BLOCK;

/** Reads a header. @returns `end` for a block of zeroes, undefined for what is no plain file's header. */
export function readMemberHeader(block: Uint8Array): { name: string; sizeBytes: number } | "end" | undefined {
  const header = Buffer.from(block.buffer, block.byteOffset, block.length);
  if (header.length !== BLOCK) return undefined;
  if (header.every((byte) => byte === 0)) return "end";
  const sum = Number.parseInt(header.toString("latin1", 148, 154), 8);
  if (sum !== checksum(header) || header.toString("latin1", 257, 262) !== "ustar" || header[156] !== ZERO)
    return undefined;
  const name = header.toString("latin1", 0, header.indexOf(0));
  const sizeBytes =
    header[124] === 0x80
      ? Number(header.readBigUInt64BE(128))
      : Number.parseInt(header.toString("latin1", 124, 135), 8);
  return Number.isSafeInteger(sizeBytes) && sizeBytes >= 0 && name.length <= MAX_NAME ? { name, sizeBytes } : undefined;
}

/** Sum of a header's bytes, its own place as blanks. */
function checksum(header: Buffer): number {
  let sum = 8 * 0x20;
  for (const [at, byte] of header.entries()) if (at < 148 || at >= 156) sum += byte;
  return sum;
}
