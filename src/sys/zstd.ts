/** Zstandard (RFC 8878) in pieces of known size, off the event loop. */
import { zstdCompress, zstdDecompress } from "bun";

const MAGIC = 0xfd2fb528;
/** Sizes of a frame's content size by the two highest bits of its descriptor. */
const CONTENT_SIZE_BYTES = [0, 2, 4, 8] as const;
const DICTIONARY_BYTES = [0, 1, 2, 4] as const;
const BLOCK_RLE = 1;
const BLOCK_RESERVED = 3;

/** One frame with the bytes, whose size is in it. */
export async function compressFrame(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  return zstdCompress(bytes, { level: 3 });
}

/**
 * The bytes of a frame. Nothing is unpacked, and no room made for it, unless it is one frame that says to have `sizeBytes` bytes.
 * @returns undefined for anything else.
 */
export async function decompressFrame(
  frame: Uint8Array<ArrayBuffer>,
  sizeBytes: number,
): Promise<Uint8Array | undefined> {
  if (contentSize(frame) !== sizeBytes) return undefined;
  const bytes = await zstdDecompress(frame).catch(() => undefined);
  return bytes?.length === sizeBytes ? bytes : undefined;
}

/** What a frame says of its size. @returns undefined if it is not exactly one whole frame that does say it. */
function contentSize(frame: Uint8Array): number | undefined {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  if (frame.length < 6 || view.getUint32(0, true) !== MAGIC) return undefined;
  const descriptor = view.getUint8(4);
  const isSingle = (descriptor & 0x20) !== 0;
  const sizeBytes = CONTENT_SIZE_BYTES[descriptor >> 6] || (isSingle ? 1 : 0);
  if (sizeBytes === 0) return undefined;
  const at = 5 + (isSingle ? 0 : 1) + (DICTIONARY_BYTES[descriptor & 3] ?? 0);
  if (at + sizeBytes > frame.length) return undefined;
  const end = endOfBlocks(view, at + sizeBytes);
  if (end === undefined || end + ((descriptor & 4) === 0 ? 0 : 4) !== frame.length) return undefined;
  if (sizeBytes === 1) return view.getUint8(at);
  if (sizeBytes === 2) return view.getUint16(at, true) + 256;
  return sizeBytes === 4 ? view.getUint32(at, true) : Number(view.getBigUint64(at, true));
}

/** Where the last block of a frame ends. @returns undefined if there is none. */
function endOfBlocks(view: DataView, from: number): number | undefined {
  for (let at = from; at + 3 <= view.byteLength; ) {
    const header = view.getUint16(at, true) | (view.getUint8(at + 2) << 16);
    const kind = (header >> 1) & 3;
    if (kind === BLOCK_RESERVED) return undefined;
    at += 3 + (kind === BLOCK_RLE ? 1 : header >> 3);
    if (at > view.byteLength) return undefined;
    if ((header & 1) === 1) return at;
  }
  return undefined;
}
