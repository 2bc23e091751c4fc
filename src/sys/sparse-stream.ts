/**
 * A file's data without its holes, compressed: pieces of at most 1 MiB, each a skippable frame of zstd's with where it belongs, followed by a frame
 * with its bytes. `zstd -d` makes of it the data of the file one after the other, which for a file without holes is the file.
 */
import { MayflyError } from "../contract/errors.ts";
import { BinaryFile } from "./binary-file.ts";
import { seekData } from "./libc.ts";
import { compressFrame, decompressFrame } from "./zstd.ts";

/** Largest piece. */
const PIECE_BYTES = 1 << 20;
/** What zstd may add to bytes that it cannot make smaller (ZSTD_COMPRESSBOUND). */
const MOST_FRAME_BYTES = PIECE_BYTES + (PIECE_BYTES >> 8) + 64;
/** Skippable frame: magic, size of what follows in it, offset in the file, bytes of the piece, bytes of its frame. Little-endian. */
const SKIPPABLE_MAGIC = 0x184d2a50;
const PREFIX_BYTES = 8 + 16;
/** Pieces that are compressed or unpacked at the same time. */
const AT_ONCE = 4;

/** Writes bytes to where the last ones ended. */
export type Append = (bytes: Uint8Array) => Promise<void>;

/** Reads the next bytes. @returns fewer than asked for only at the end. */
export type ReadNext = (length: number) => Promise<Uint8Array<ArrayBuffer>>;

/** Told of bytes of files that have been dealt with. */
export type OnBytes = (bytes: number) => void;

/** Appends a file's data. @throws what the file system says, `cancelled`. */
export async function writeSparse(
  file: BinaryFile,
  append: Append,
  onBytes: OnBytes,
  signal?: AbortSignal,
): Promise<void> {
  const pending: Promise<{ offset: number; bytes: number; frame: Uint8Array }>[] = [];
  const writeOne = async () => {
    const first = await pending.shift();
    if (first === undefined) return;
    const prefix = new DataView(new ArrayBuffer(PREFIX_BYTES));
    prefix.setUint32(0, SKIPPABLE_MAGIC, true);
    prefix.setUint32(4, PREFIX_BYTES - 8, true);
    prefix.setBigUint64(8, BigInt(first.offset), true);
    prefix.setUint32(16, first.bytes, true);
    prefix.setUint32(20, first.frame.length, true);
    await append(new Uint8Array(prefix.buffer));
    await append(first.frame);
    onBytes(first.bytes);
  };
  try {
    for (const { offset, length } of pieces(file, await file.sizeBytes())) {
      throwIfCancelled(signal);
      const bytes = new Uint8Array(length);
      await file.read(bytes, offset);
      const work = compressFrame(bytes).then((frame) => ({ offset, bytes: length, frame }));
      work.catch(() => undefined);
      pending.push(work);
      if (pending.length >= AT_ONCE) await writeOne();
    }
    while (pending.length > 0) await writeOne();
  } finally {
    await Promise.allSettled(pending);
  }
}

function* pieces(file: BinaryFile, sizeBytes: number): Generator<{ offset: number; length: number }> {
  for (let at = seekData(file.fd, 0, false, file.path); at !== undefined && at < sizeBytes; ) {
    const end = Math.min(seekData(file.fd, at, true, file.path) ?? sizeBytes, sizeBytes);
    for (; at < end; at += PIECE_BYTES) yield { offset: at, length: Math.min(PIECE_BYTES, end - at) };
    at = seekData(file.fd, end, false, file.path);
  }
}

/**
 * Reads the data of a file of a known size into a new one, whose holes are where there was none.
 * @param streamBytes length of the stream.
 * @param bad makes the error for a stream that cannot be one.
 * @throws `disk_full`, `cancelled`, what `bad` makes.
 */
export async function readSparse(
  next: ReadNext,
  streamBytes: number,
  into: { path: string; sizeBytes: number },
  bad: (why: string) => Error,
  signal?: AbortSignal,
): Promise<void> {
  await using file = await BinaryFile.change(into.path);
  await file.resize(into.sizeBytes).catch(() => {
    throw bad(`its file system has no files of ${into.sizeBytes} bytes`);
  });
  let end = 0;
  for (let left = streamBytes; left > 0; ) {
    throwIfCancelled(signal);
    const prefix = await next(Math.min(left, PREFIX_BYTES));
    if (prefix.length < PREFIX_BYTES) throw bad("it ends within a piece");
    const view = new DataView(prefix.buffer, prefix.byteOffset, PREFIX_BYTES);
    const [offset, bytes, frameBytes] = [
      Number(view.getBigUint64(8, true)),
      view.getUint32(16, true),
      view.getUint32(20, true),
    ];
    left -= PREFIX_BYTES + frameBytes;
    const isPiece = view.getUint32(0, true) === SKIPPABLE_MAGIC && view.getUint32(4, true) === PREFIX_BYTES - 8;
    if (!isPiece || bytes === 0 || bytes > PIECE_BYTES || frameBytes > MOST_FRAME_BYTES || left < 0) {
      throw bad(`a piece of ${bytes} bytes in ${frameBytes} is none`);
    }
    if (offset < end || offset + bytes > into.sizeBytes) {
      throw bad(`a piece of ${bytes} bytes at ${offset} does not fit after ${end} in a file of ${into.sizeBytes}`);
    }
    end = offset + bytes;
    const frame = await next(frameBytes);
    const data = frame.length === frameBytes ? await decompressFrame(frame, bytes) : undefined;
    if (data === undefined) throw bad(`the piece at ${offset} cannot be unpacked`);
    await file.write(data, offset);
  }
}

/** @throws `cancelled`. */
export function throwIfCancelled(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new MayflyError("cancelled", "The work on an archive was interrupted");
}
