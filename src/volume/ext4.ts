/** ext4 file systems in files: made, looked at without a process, and mended by e2fsck as a user who may nothing else. */
import { MayflyError } from "../contract/errors.ts";
import { grantFile, readRange, revokeFile } from "../sys/disk-files.ts";
import { runTool } from "../sys/tool.ts";

/** The superblock's place, and what is read of it (Linux Documentation/filesystems/ext4/super.rst). */
const SUPERBLOCK_OFFSET = 1024;
const SUPERBLOCK_BYTES = 1024;
const AT = { blocks: 0x4, blockSize: 0x18, magic: 0x38, state: 0x3a, incompatible: 0x60, blocksHigh: 0x150 } as const;
const MAGIC = 0xef53;
/** s_state: unmounted cleanly, and nothing else (bit 1: errors were found, bit 2: orphans are being recovered). */
const STATE_CLEAN = 1;
/** INCOMPAT_RECOVER: the journal has to be replayed. */
const NEEDS_RECOVERY = 0x4;
/** INCOMPAT_64BIT: numbers of blocks have an upper half. */
const HAS_64_BITS = 0x80;

const MAKE_LIMIT_MS = 60_000;
const MEND_LIMIT_MS = 600_000;
/** e2fsck(8): bits of the exit code. Everything was mended, that the machine should be restarted means nothing here. */
const MENDED = 1 | 2;

/**
 * Makes an ext4 file system in a file of holes. The file reads as zeroes: neither inode tables nor the journal are written, here or by the guest.
 * Its root is empty, without lost+found, as programs expect of a new volume.
 * @param journal without one for what is thrown away with its VM.
 * @throws `disk_full`, `tool_missing`; the file is then what it is.
 */
export async function makeExt4(path: string, journal: boolean): Promise<void> {
  const features = journal ? [] : ["-O", "^has_journal,^resize_inode"];
  const extended = "assume_storage_prezeroed=1,nodiscard,root_owner=0:0";
  await runMaking(["mkfs.ext4", "-q", "-F", "-m", "0", ...features, "-E", extended, path], path);
  await runMaking(["debugfs", "-w", "-R", "rmdir lost+found", path], path);
}

async function runMaking(command: readonly string[], path: string): Promise<void> {
  try {
    await runTool(command, { deadlineMs: MAKE_LIMIT_MS, endsWithUs: true });
  } catch (error) {
    const tail = error instanceof MayflyError ? (error.details.stderrTail ?? "") : "";
    if (!/No space left|quota exceeded/i.test(tail)) throw error;
    const message = `Cannot make a file system in ${path}: no space left on the disk`;
    throw new MayflyError("disk_full", message, { details: { path, stderrTail: tail }, cause: error });
  }
}

/** What an ext4 file system says of itself. */
export interface Ext4State {
  /** Whether it was unmounted cleanly and no errors were met in it. */
  isClean: boolean;
  /** At most the size of its disk. */
  sizeBytes: number;
}

/** Reads the superblock, one kilobyte, at once. @throws `store_corrupt` if there is no ext4 file system in the file. */
export function readExt4(path: string): Ext4State {
  const superblock = readRange(path, SUPERBLOCK_OFFSET, SUPERBLOCK_BYTES);
  if (superblock.length < SUPERBLOCK_BYTES || superblock.readUInt16LE(AT.magic) !== MAGIC) {
    throw new MayflyError("store_corrupt", `Cannot use ${path}: it holds no ext4 file system`, { details: { path } });
  }
  const incompatible = superblock.readUInt32LE(AT.incompatible);
  const high = (incompatible & HAS_64_BITS) === 0 ? 0 : superblock.readUInt32LE(AT.blocksHigh);
  const blocks = high * 2 ** 32 + superblock.readUInt32LE(AT.blocks);
  return {
    isClean: superblock.readUInt16LE(AT.state) === STATE_CLEAN && (incompatible & NEEDS_RECOVERY) === 0,
    sizeBytes: blocks * 2 ** (10 + superblock.readUInt32LE(AT.blockSize)),
  };
}

/**
 * Mends a file system: its journal is replayed, and what can be put right without a question is. A guest has made what is in it, so
 * e2fsck runs as a user of its own, who may open this file and nothing else of ours, and without a network.
 * @param uid a user that nobody else is meanwhile.
 * @throws `store_corrupt` when it needs somebody's decision; the file is as e2fsck has left it.
 */
export async function mendExt4(path: string, uid: number): Promise<void> {
  grantFile(path, uid);
  try {
    if (await runMending(["e2fsck", "-p", path], uid, path)) {
      // A whole check makes it again.
      await runMending(["debugfs", "-w", "-R", "rmdir lost+found", path], uid, path);
    }
  } finally {
    revokeFile(path);
  }
}

/** @returns whether anything was changed. */
async function runMending(command: readonly string[], uid: number, path: string): Promise<boolean> {
  const user = [`--reuid=${uid}`, `--regid=${uid}`, "--clear-groups", "--no-new-privs", "--bounding-set=-all"];
  const confined = ["unshare", "--net", "--ipc", "--", "setpriv", ...user, "--pdeathsig=KILL", "--", ...command];
  try {
    await runTool(confined, { deadlineMs: MEND_LIMIT_MS, endsWithUs: true });
    return false;
  } catch (error) {
    if (!(error instanceof MayflyError) || error.code !== "tool_failed") throw error;
    const { exitCode = -1 } = error.details;
    if (exitCode > 0 && (exitCode & ~MENDED) === 0) return true;
    throw new MayflyError("store_corrupt", `Cannot use ${path}: its file system is damaged, and e2fsck needs answers`, {
      details: { ...error.details, path, remedy: `e2fsck ${path}` },
      cause: error,
    });
  }
}
