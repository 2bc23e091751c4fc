/**
 * What a guest sees in a disk that is an overlay over a raw image, as one raw image: for hosts that have not the one below
 * (QEMU docs/interop/qcow2.txt). Of files that QEMU has closed or stopped writing.
 */
import { MayflyError } from "../contract/errors.ts";
import { BinaryFile } from "../sys/binary-file.ts";
import { QCOW2_MAGIC } from "../sys/disk-files.ts";
import { punchHole } from "../sys/libc.ts";
import { copySparse } from "../sys/memory-file.ts";
import { throwIfCancelled } from "../sys/sparse-stream.ts";
import { CLUSTER_BITS, CLUSTER_BYTES, HEADER_BYTES, L1_ENTRY_BYTES } from "./overlay.ts";

const ENTRY_BYTES = 8;
/** Entries of the second table in a cluster. */
const ENTRIES = L1_ENTRY_BYTES / CLUSTER_BYTES;
/** Of a disk of 32 TiB. */
const MAX_L1_ENTRIES = 65_536;
const OFFSET_MASK = 0x00fffffffffffe00n;
const COMPRESSED = 1n << 62n;
const ZERO = 1n;

/** Where an overlay's first table lies. */
interface Layout {
  diskBytes: number;
  l1Entries: number;
  l1Offset: number;
}

/**
 * Writes an overlay's whole disk into an existing empty file; holes stay holes.
 * @param basePath the raw image below it, which may be shorter than its disk.
 * @throws `store_corrupt` for an overlay that is none of ours; `disk_full`, `cancelled`.
 */
export async function flattenOverlay(
  overlayPath: string,
  basePath: string,
  to: string,
  signal?: AbortSignal,
): Promise<void> {
  await using overlay = await BinaryFile.open(overlayPath);
  const layout = await layoutOf(overlay);
  await copySparse(basePath, to, signal);
  await using whole = await BinaryFile.change(to);
  await whole.resize(layout.diskBytes);
  const first = await readAt(overlay, layout.l1Offset, layout.l1Entries * ENTRY_BYTES);
  for (let index = 0; index < layout.l1Entries; index++) {
    const entry = first.readBigUInt64BE(index * ENTRY_BYTES);
    if ((entry & OFFSET_MASK) === 0n) continue;
    throwIfCancelled(signal);
    const second = await readAt(overlay, Number(entry & OFFSET_MASK), CLUSTER_BYTES);
    await copyClusters(overlay, whole, second, index * L1_ENTRY_BYTES, layout.diskBytes);
  }
}

/** Copies what one second table names; it stands for the disk from `start` on. */
async function copyClusters(
  overlay: BinaryFile,
  whole: BinaryFile,
  table: Buffer,
  start: number,
  diskBytes: number,
): Promise<void> {
  for (let index = 0; index < ENTRIES; index++) {
    const entry = table.readBigUInt64BE(index * ENTRY_BYTES);
    if (entry === 0n) continue;
    const at = start + index * CLUSTER_BYTES;
    const length = Math.min(CLUSTER_BYTES, diskBytes - at);
    if (length <= 0) throw corrupt(overlay, `it has a cluster at ${at} of a disk of ${diskBytes} bytes`);
    if ((entry & COMPRESSED) !== 0n) throw corrupt(overlay, "it has compressed clusters, which no overlay of ours has");
    const offset = Number(entry & OFFSET_MASK);
    if ((entry & ZERO) !== 0n) punchHole(whole.fd, at, length, whole.path);
    else if (offset !== 0) await whole.write(await readAt(overlay, offset, length), at);
  }
}

async function layoutOf(overlay: BinaryFile): Promise<Layout> {
  const header = await readAt(overlay, 0, HEADER_BYTES);
  if (header.readUInt32BE(0) !== QCOW2_MAGIC || header.readUInt32BE(4) !== 3)
    throw corrupt(overlay, "it is no qcow2 file");
  // Another file below or beside it, encryption, a size of clusters, features without which it cannot be understood.
  const isOurs =
    header.readBigUInt64BE(8) === 0n &&
    header.readUInt32BE(20) === CLUSTER_BITS &&
    header.readUInt32BE(32) === 0 &&
    header.readBigUInt64BE(72) === 0n;
  if (!isOurs) throw corrupt(overlay, "it has features that no overlay of ours has");
  const diskBytes = Number(header.readBigUInt64BE(24));
  const l1Entries = header.readUInt32BE(36);
  if (l1Entries * L1_ENTRY_BYTES < diskBytes || l1Entries > MAX_L1_ENTRIES) {
    throw corrupt(overlay, `it has a table of ${l1Entries} entries for ${diskBytes} bytes`);
  }
  return { diskBytes, l1Entries, l1Offset: Number(header.readBigUInt64BE(40)) };
}

async function readAt(file: BinaryFile, offset: number, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  const read = await file.read(bytes, offset);
  // QEMU does not fill the last cluster of a file up.
  if (read === 0 && length > 0) throw corrupt(file, `it ends before ${offset}`);
  return bytes;
}

function corrupt({ path }: BinaryFile, why: string): MayflyError {
  return new MayflyError("store_corrupt", `Cannot read the disk in ${path}: ${why}`, { details: { path } });
}
