/** Passes over a sparse memory file: finding zero pages, freeing them, and a checksum that does not depend on holes. */
import { createHash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import { MayflyError } from "../contract/errors.ts";
import { punchHole, seekData } from "./libc.ts";
import { runTool } from "./tool.ts";

/** Size of a guest page and of the unit of trimming, in bytes. */
export const PAGE_BYTES = 4096;
const CHUNK_BYTES = 256 * PAGE_BYTES;
const ZERO_PAGE = Buffer.alloc(PAGE_BYTES);

/** What a pass over a memory file found. */
export interface MemoryDigest {
  sizeBytes: number;
  /** Bytes that the file takes on disk. */
  allocatedBytes: number;
  nonZeroPages: number;
  /** SHA-256, hexadecimal, over each non-zero page: its index as u64 little-endian, then its bytes. */
  sha256: string;
}

/**
 * Reads a memory file's data once; with `trim`, punches a hole for every run of zero pages.
 * Nobody may be writing to it.
 */
export async function digestMemoryFile(path: string, options: { trim: boolean }): Promise<MemoryDigest> {
  const file = await open(path, options.trim ? "r+" : "r");
  try {
    const { size } = await file.stat();
    const hash = createHash("sha256");
    const pass = {
      hash,
      nonZeroPages: 0,
      chunk: Buffer.alloc(CHUNK_BYTES),
      index: Buffer.alloc(8),
      trim: options.trim,
    };
    for (let at = seekData(file.fd, 0, false, path); at !== undefined && at < size; ) {
      const end = seekData(file.fd, at, true, path) ?? size;
      await passSegment(file, path, at, Math.min(end, size), pass);
      at = seekData(file.fd, end, false, path);
    }
    if (options.trim) await file.sync();
    const { blocks } = await file.stat();
    return {
      sizeBytes: size,
      allocatedBytes: blocks * 512,
      nonZeroPages: pass.nonZeroPages,
      sha256: hash.digest("hex"),
    };
  } finally {
    await file.close();
  }
}

/**
 * Copies a file's data over another file, whose owner and mode stay; holes stay holes, and where the file system can share blocks it does.
 * @throws `disk_full`, `cancelled`, `tool_failed`.
 */
export async function copySparse(from: string, to: string, signal?: AbortSignal): Promise<void> {
  const command = ["cp", "--reflink=auto", "--sparse=auto", "--", from, to];
  try {
    await runTool(command, { endsWithUs: true, ...(signal === undefined ? {} : { signal }) });
  } catch (error) {
    const isFull = error instanceof MayflyError && /No space left on device|Disk quota exceeded/.test(error.message);
    if (!isFull) throw error;
    throw new MayflyError("disk_full", `Cannot copy ${from} to ${to}: no space left on its file system`, {
      details: { path: to },
      cause: error,
    });
  }
}

interface Pass {
  hash: ReturnType<typeof createHash>;
  nonZeroPages: number;
  chunk: Buffer;
  index: Buffer;
  trim: boolean;
}

async function passSegment(file: FileHandle, path: string, from: number, to: number, pass: Pass): Promise<void> {
  for (let at = from - (from % PAGE_BYTES); at < to; at += CHUNK_BYTES) {
    const { bytesRead } = await file.read(pass.chunk, 0, Math.min(CHUNK_BYTES, to - at), at);
    passChunk(file, path, at, pass.chunk.subarray(0, bytesRead), pass);
  }
}

function passChunk(file: FileHandle, path: string, at: number, chunk: Buffer, pass: Pass): void {
  let zeroFrom: number | undefined;
  for (let offset = 0; offset < chunk.length; offset += PAGE_BYTES) {
    const page = chunk.subarray(offset, offset + PAGE_BYTES);
    if (page.length === PAGE_BYTES && ZERO_PAGE.equals(page)) {
      zeroFrom ??= at + offset;
      continue;
    }
    if (zeroFrom !== undefined && pass.trim) punchHole(file.fd, zeroFrom, at + offset - zeroFrom, path);
    zeroFrom = undefined;
    pass.nonZeroPages += 1;
    pass.index.writeBigUInt64LE(BigInt((at + offset) / PAGE_BYTES));
    pass.hash.update(pass.index).update(page);
  }
  if (zeroFrom !== undefined && pass.trim) punchHole(file.fd, zeroFrom, at + chunk.length - zeroFrom, path);
}
