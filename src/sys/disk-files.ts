/** Files that hold VMs' disks: who may open them, and how large the disk in them is. At once: they are on the path of a clone. */
import {
  chmodSync,
  chownSync,
  closeSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { MayflyError } from "../contract/errors.ts";
import { diskFull } from "./publish.ts";

/** qcow2: magic, and where the disk's size stands, big-endian (QEMU docs/interop/qcow2.txt). */
export const QCOW2_MAGIC = 0x514649fb;
const QCOW2_SIZE_OFFSET = 24;

/**
 * Size in bytes of the disk that a guest sees in a file.
 * @throws `store_corrupt` for a qcow2 file that is none; what the file system says.
 */
export function diskSizeBytes(path: string, format: "raw" | "qcow2"): number {
  if (format === "raw") return statSync(path).size;
  const header = Buffer.alloc(QCOW2_SIZE_OFFSET + 8);
  const fd = openSync(path, "r");
  try {
    const length = readSync(fd, header, 0, header.length, 0);
    if (length === header.length && header.readUInt32BE(0) === QCOW2_MAGIC) {
      return Number(header.readBigUInt64BE(QCOW2_SIZE_OFFSET));
    }
  } finally {
    closeSync(fd);
  }
  throw new MayflyError("store_corrupt", `Cannot use ${path}: it is no qcow2 file`, { details: { path } });
}

/** Makes a file a user's own, to write or only to read, and nobody else's but root's. */
export function grantFile(path: string, uid: number, mode: 0o600 | 0o400 = 0o600): void {
  chmodSync(path, mode);
  chownSync(path, uid, 0);
}

/** Takes a file back: it is root's alone. One that is gone is no error. */
export function revokeFile(path: string): void {
  try {
    chownSync(path, 0, 0);
    chmodSync(path, 0o600);
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return;
    throw error;
  }
}

/** Makes a file, root's alone, of holes but for its pieces. @throws `disk_full`, and then it is not there; what else the file system says, EEXIST too. */
export function newSparseFile(
  path: string,
  sizeBytes: number,
  pieces: readonly { offset: number; bytes: Uint8Array }[],
): void {
  const fd = openSync(path, "wx", 0o600);
  try {
    ftruncateSync(fd, sizeBytes);
    for (const { offset, bytes } of pieces) writeSync(fd, bytes, 0, bytes.length, offset);
  } catch (error) {
    rmSync(path, { force: true });
    throw noPlace(error, path, sizeBytes);
  } finally {
    closeSync(fd);
  }
}

/** Bytes of a file from an offset on, fewer at its end. At once. */
export function readRange(path: string, offset: number, length: number): Buffer {
  const fd = openSync(path, "r");
  try {
    const there = Math.max(0, fstatSync(fd).size - offset);
    const bytes = Buffer.alloc(Math.min(length, there));
    return bytes.subarray(0, readSync(fd, bytes, 0, bytes.length, offset));
  } finally {
    closeSync(fd);
  }
}

/** Opens a file to read it with calls that take a descriptor. At once; disposing closes it. */
export function openRead(path: string): { fd: number; sizeBytes: number } & Disposable {
  const fd = openSync(path, "r");
  return { fd, sizeBytes: fstatSync(fd).size, [Symbol.dispose]: () => closeSync(fd) };
}

/** Makes a file longer, by a hole, and has that on disk. @throws `disk_full`; `invalid_argument` for a length that cannot be; what else the file system says. */
export function growFile(path: string, sizeBytes: number): void {
  const fd = openSync(path, "r+");
  try {
    ftruncateSync(fd, sizeBytes);
    fsyncSync(fd);
  } catch (error) {
    throw noPlace(error, path, sizeBytes);
  } finally {
    closeSync(fd);
  }
}

/** Size of a file and what it takes on disk. @returns undefined if there is none. */
export function fileSpace(path: string): { sizeBytes: number; allocatedBytes: number } | undefined {
  const found = statSync(path, { throwIfNoEntry: false });
  return found === undefined ? undefined : { sizeBytes: found.size, allocatedBytes: found.blocks * 512 };
}

function noPlace(error: unknown, path: string, sizeBytes: number): unknown {
  if (!(error instanceof Error) || !("code" in error) || error.code !== "EFBIG") return diskFull(error, path);
  return new MayflyError(
    "invalid_argument",
    `Cannot make ${path} ${sizeBytes} bytes long: its file system has no such files`,
    {
      details: { path },
      cause: error,
    },
  );
}
