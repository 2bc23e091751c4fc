/**
 * Empty qcow2 overlays (QEMU docs/interop/qcow2.txt, version 3), written directly: a few kilobytes and no helper process. An overlay names no
 * file below it; QEMU is told that by its arguments.
 */
import { newSparseFile, QCOW2_MAGIC } from "../sys/disk-files.ts";

/** Of all overlays. */
export const CLUSTER_BITS = 16;
export const CLUSTER_BYTES = 2 ** CLUSTER_BITS;
/** Bytes of the disk that one entry of the first table stands for: a cluster full of 8-byte entries, a cluster each. */
export const L1_ENTRY_BYTES = (CLUSTER_BYTES / 8) * CLUSTER_BYTES;
/** The header without extensions. */
export const HEADER_BYTES = 104;
/** Clusters before the first table: header, refcount table, one block of refcounts (enough for a file of 2 GiB; QEMU adds more). */
const FIRST_CLUSTERS = 3;

/** What is not zero in an empty overlay: its pieces, and the length of the file. */
export interface OverlayContent {
  pieces: { offset: number; bytes: Uint8Array }[];
  fileBytes: number;
}

/** The content of an empty qcow2 file with a disk of `sizeBytes`, a multiple of 512. */
export function emptyOverlay(sizeBytes: number): OverlayContent {
  const l1Entries = Math.ceil(sizeBytes / L1_ENTRY_BYTES);
  const clusters = FIRST_CLUSTERS + Math.ceil((l1Entries * 8) / CLUSTER_BYTES);
  // The header's extensions end with eight bytes of zero, which are there already.
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt32BE(QCOW2_MAGIC, 0);
  header.writeUInt32BE(3, 4);
  header.writeUInt32BE(CLUSTER_BITS, 20);
  header.writeBigUInt64BE(BigInt(sizeBytes), 24);
  header.writeUInt32BE(l1Entries, 36);
  header.writeBigUInt64BE(BigInt(FIRST_CLUSTERS * CLUSTER_BYTES), 40);
  header.writeBigUInt64BE(BigInt(CLUSTER_BYTES), 48);
  header.writeUInt32BE(1, 56);
  header.writeUInt32BE(4, 96);
  header.writeUInt32BE(HEADER_BYTES, 100);
  const refcountTable = Buffer.alloc(8);
  refcountTable.writeBigUInt64BE(BigInt(2 * CLUSTER_BYTES));
  const refcounts = Buffer.alloc(clusters * 2);
  for (let cluster = 0; cluster < clusters; cluster++) refcounts.writeUInt16BE(1, cluster * 2);
  const pieces = [header, refcountTable, refcounts].map((bytes, index) => ({ offset: index * CLUSTER_BYTES, bytes }));
  return { pieces, fileBytes: clusters * CLUSTER_BYTES };
}

/** Makes an empty overlay, root's alone. @throws EEXIST; what else the file system says. */
export function makeOverlay(path: string, sizeBytes: number): void {
  const { pieces, fileBytes } = emptyOverlay(sizeBytes);
  newSparseFile(path, fileBytes, pieces);
}
