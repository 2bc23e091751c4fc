/** Tells what a root file system image is, from its superblock. */

import { MayflyError } from "../contract/errors.ts";
import { identityOf, readStart } from "../sys/paths.ts";

/** What {@link detectRootfs} found. */
export interface RootfsKind {
  /** `ext4` stands for ext2 and ext3 too: the same driver reads them. */
  fstype: "erofs" | "ext4";
  /** Size of the file in bytes. */
  sizeBytes: number;
}

/** Both superblocks are at this offset. */
const SUPERBLOCK = 1024;
const EROFS_MAGIC = 0xe0f5e1e2;
const EXT_MAGIC = 0xef53;
/** Ext4 incompat features (Linux' fs/ext4/ext4.h). */
const EXT_RECOVER = 0x4;
const EXT_64BIT = 0x80;
const READ_BYTES = 128 * 1024;

/** Other things that a path may turn out to be: bytes at an offset, and what they mean. */
const OTHERS: readonly { at: number; magic: string; what: string; isTarball?: boolean }[] = [
  { at: 0, magic: "\x1f\x8b", what: "gzip-compressed", isTarball: true },
  { at: 0, magic: "\xfd7zXZ\0", what: "xz-compressed", isTarball: true },
  { at: 0, magic: "\x28\xb5\x2f\xfd", what: "zstd-compressed", isTarball: true },
  { at: 257, magic: "ustar", what: "a tarball", isTarball: true },
  { at: 0, magic: "QFI\xfb", what: "a qcow2 image" },
  { at: 0, magic: "hsqs", what: "a squashfs image" },
  { at: 0, magic: "XFSB", what: "an XFS image" },
  { at: 0x10040, magic: "_BHRfS_M", what: "a Btrfs image" },
  { at: 0x8001, magic: "CD001", what: "an ISO 9660 image" },
  { at: 0x200, magic: "EFI PART", what: "a disk image with a GPT partition table" },
  { at: 0, magic: "\x7fELF", what: "an ELF program" },
  { at: 0, magic: "PK\x03\x04", what: "a zip archive" },
];

/**
 * Recognises an erofs (Linux' fs/erofs/erofs_fs.h) or ext2/3/4 (fs/ext4/ext4.h) image, and checks that the file has all
 * the blocks that the superblock tells of.
 *
 * @throws MayflyError `file_not_found`; `rootfs_invalid`, saying what the file is instead, or what is wrong with it.
 */
export async function detectRootfs(path: string): Promise<RootfsKind> {
  const identity = await identityOf(path);
  if (identity === undefined) {
    throw new MayflyError("file_not_found", `Cannot use ${path} as a root file system: there is no such file`, {
      details: { path },
    });
  }
  if (!identity.isFile) throw invalid(path, `it is ${identity.isDirectory ? "a directory" : "no regular file"}`);
  const bytes = await readStart(path, READ_BYTES);
  if (bytes.length === 0) throw invalid(path, "it is empty");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length >= SUPERBLOCK + 1024) {
    if (view.getUint32(SUPERBLOCK, true) === EROFS_MAGIC) return erofs(path, view, identity.sizeBytes);
    if (view.getUint16(SUPERBLOCK + 0x38, true) === EXT_MAGIC) return ext4(path, view, identity.sizeBytes);
  }
  throw notRootfs(path, bytes);
}

function erofs(path: string, view: DataView, sizeBytes: number): RootfsKind {
  const blockBits = view.getUint8(SUPERBLOCK + 12);
  if (blockBits < 9 || blockBits > 16) throw invalid(path, `its erofs superblock has blocks of 2^${blockBits} bytes`);
  const needBytes = view.getUint32(SUPERBLOCK + 36, true) * 2 ** blockBits;
  if (needBytes > sizeBytes) throw cutOff(path, "erofs", needBytes, sizeBytes);
  return { fstype: "erofs", sizeBytes };
}

function ext4(path: string, view: DataView, sizeBytes: number): RootfsKind {
  const incompatible = view.getUint32(SUPERBLOCK + 0x60, true);
  const blockBits = 10 + view.getUint32(SUPERBLOCK + 0x18, true);
  if (blockBits > 16) throw invalid(path, `its ext4 superblock has blocks of 2^${blockBits} bytes`);
  const high = (incompatible & EXT_64BIT) === 0 ? 0 : view.getUint32(SUPERBLOCK + 0x150, true);
  const needBytes = (view.getUint32(SUPERBLOCK + 4, true) + high * 2 ** 32) * 2 ** blockBits;
  if (needBytes > sizeBytes) throw cutOff(path, "ext4", needBytes, sizeBytes);
  if ((incompatible & EXT_RECOVER) !== 0) {
    const remedy = `e2fsck -fy ${path}`;
    throw invalid(path, `its journal has to be replayed first, and it is used read-only. Run: ${remedy}`, remedy);
  }
  return { fstype: "ext4", sizeBytes };
}

function notRootfs(path: string, bytes: Uint8Array): MayflyError {
  const start = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const other = OTHERS.find(({ at, magic }) => start.toString("latin1", at, at + magic.length) === magic);
  if (other === undefined) return invalid(path, "it is neither an erofs nor an ext4 image");
  const remedy = `mayfly image import NAME ${path}`;
  if (other.isTarball)
    return invalid(path, `it is ${other.what}; a tarball has to be imported first: ${remedy}`, remedy);
  return invalid(path, `it is ${other.what}, not an erofs or ext4 image`);
}

function cutOff(path: string, fstype: string, needBytes: number, sizeBytes: number): MayflyError {
  return invalid(
    path,
    `it is cut off: its ${fstype} superblock tells of ${needBytes} bytes, the file has ${sizeBytes}`,
  );
}

function invalid(path: string, why: string, remedy?: string): MayflyError {
  return new MayflyError("rootfs_invalid", `Cannot use ${path} as a root file system: ${why}`, {
    details: { path, ...(remedy === undefined ? {} : { remedy }) },
  });
}
