/**
 * Reads the headers of a tar stream as it passes: ustar (POSIX.1-2017 pax), pax extended headers, and GNU's long names and
 * sparse files (GNU tar's manual, "Basic Tar Format"). Data is skipped, not kept.
 */

import { MayflyError } from "../contract/errors.ts";

/** What an entry is. */
export type TarEntryType = "file" | "hardlink" | "symlink" | "character" | "block" | "directory" | "fifo";

/** One entry. Names are bytes as latin-1 text, since a tarball need not hold UTF-8. */
export interface TarEntry {
  name: string;
  type: TarEntryType;
  /** Target of a link; empty otherwise. */
  link: string;
  /** Bytes that the file will have; holes of a sparse file count. */
  sizeBytes: number;
}

const BLOCK = 512;
/** Longest extended header (pax `x`, GNU `L` and `K`). */
const MAX_EXTENDED_BYTES = 1024 * 1024;

const TYPES: Readonly<Record<string, TarEntryType>> = {
  "\0": "file",
  "0": "file",
  "7": "file",
  S: "file",
  "1": "hardlink",
  "2": "symlink",
  "3": "character",
  "4": "block",
  "5": "directory",
  "6": "fifo",
};

/** Header fields that extended headers replace for the next entry. Pax records go before GNU's long names. */
interface Overrides {
  longName?: string;
  longLink?: string;
  sparseName?: string;
  name?: string;
  link?: string;
  storedBytes?: number;
  sizeBytes?: number;
}

/** Reads a stream given in chunks of any size, and hands each entry to `onEntry` before its data passes. */
export class TarReader {
  readonly #onEntry: (entry: TarEntry) => void;
  #pending = new Uint8Array(BLOCK);
  #pendingLength = 0;
  #skipBytes = 0;
  #extended: { type: string; bytes: Uint8Array; length: number; size: number } | undefined;
  #sparseContinues = false;
  #next: Overrides = {};
  #skipAfterSparse = 0;
  #lastName = "";
  #zeroBlocks = 0;

  /** @param onEntry may throw to refuse the entry. @param label names the tarball in errors. */
  constructor(
    onEntry: (entry: TarEntry) => void,
    readonly label = "the tarball",
  ) {
    this.#onEntry = onEntry;
  }

  /** Whether the two blocks of zeroes that end an archive have been seen; what follows is none of it. */
  get ended(): boolean {
    return this.#zeroBlocks >= 2;
  }

  /**
   * Reads on.
   *
   * @returns how many bytes of `chunk` belong to the archive: all, until it ends.
   * @throws MayflyError `image_invalid` naming the entry or the last good one.
   */
  push(chunk: Uint8Array): number {
    let at = 0;
    while (at < chunk.length && !this.ended) {
      if (this.#skipBytes > 0) {
        const skipped = Math.min(this.#skipBytes, chunk.length - at);
        this.#skipBytes -= skipped;
        at += skipped;
        continue;
      }
      const taken = Math.min(BLOCK - this.#pendingLength, chunk.length - at);
      this.#pending.set(chunk.subarray(at, at + taken), this.#pendingLength);
      this.#pendingLength += taken;
      at += taken;
      if (this.#pendingLength < BLOCK) break;
      this.#pendingLength = 0;
      this.#block(this.#pending);
    }
    return at;
  }

  /** The stream has ended. @throws MayflyError `image_invalid` if it ends in the middle of something. */
  end(): void {
    if (this.ended) return;
    if (this.#skipBytes > 0 || this.#pendingLength > 0 || this.#extended !== undefined || this.#sparseContinues) {
      throw this.#invalid("is cut off in the middle");
    }
  }

  #block(block: Uint8Array): void {
    if (this.#extended !== undefined) this.#extendedBlock(block);
    else if (this.#sparseContinues) this.#sparseBlock(block);
    else if (block.every((byte) => byte === 0)) this.#zeroBlocks++;
    else this.#header(block);
  }

  #header(block: Uint8Array): void {
    if (this.#zeroBlocks > 0) throw this.#invalid("has a header after its end");
    this.#checkSum(block);
    const type = text(block, 156, 1) || "\0";
    const storedBytes = this.#number(block, 124, 12, "size");
    if (type === "x" || type === "g" || type === "L" || type === "K") {
      if (storedBytes > MAX_EXTENDED_BYTES) throw this.#invalid(`has an extended header of ${storedBytes} bytes`);
      if (storedBytes === 0) return;
      this.#extended = { type, bytes: new Uint8Array(storedBytes), length: 0, size: storedBytes };
      return;
    }
    this.#entry(block, type, storedBytes);
  }

  #entry(block: Uint8Array, type: string, headerBytes: number): void {
    const overrides = this.#next;
    this.#next = {};
    const prefix = text(block, 257, 6) === "ustar" ? text(block, 345, 155) : "";
    const short = prefix === "" ? text(block, 0, 100) : `${prefix}/${text(block, 0, 100)}`;
    const name = overrides.sparseName ?? overrides.name ?? overrides.longName ?? short;
    this.#lastName = name;
    const known = TYPES[type];
    if (known === undefined)
      throw this.#invalid(`has an entry of type ${JSON.stringify(type)}, which is not supported`);
    const stored = overrides.storedBytes ?? headerBytes;
    const entryType = known === "file" && name.endsWith("/") ? "directory" : known;
    if (entryType !== "file" && stored !== 0) throw this.#invalid(`has ${stored} bytes of data on a ${entryType}`);
    let sizeBytes = overrides.sizeBytes ?? stored;
    if (type === "S") {
      sizeBytes = this.#number(block, 483, 12, "real size");
      this.#sparseContinues = block[482] !== 0;
    }
    const link =
      entryType === "hardlink" || entryType === "symlink"
        ? (overrides.link ?? overrides.longLink ?? text(block, 157, 100))
        : "";
    this.#onEntry({ name, type: entryType, link, sizeBytes });
    this.#skipAfterSparse = Math.ceil(stored / BLOCK) * BLOCK;
    if (!this.#sparseContinues) this.#skipBytes = this.#skipAfterSparse;
  }

  /** A GNU sparse file's map goes on in further blocks, before its data. */
  #sparseBlock(block: Uint8Array): void {
    this.#sparseContinues = block[504] !== 0;
    if (!this.#sparseContinues) this.#skipBytes = this.#skipAfterSparse;
  }

  #extendedBlock(block: Uint8Array): void {
    const extended = this.#extended;
    if (extended === undefined) return;
    const taken = Math.min(BLOCK, extended.size - extended.length);
    extended.bytes.set(block.subarray(0, taken), extended.length);
    extended.length += taken;
    if (extended.length < extended.size) return;
    this.#extended = undefined;
    const value = text(extended.bytes, 0, extended.size);
    if (extended.type === "L") this.#next.longName = value;
    else if (extended.type === "K") this.#next.longLink = value;
    else this.#pax(extended.bytes, extended.type === "g");
  }

  /** Records `length key=value\n`; the length counts itself. */
  #pax(bytes: Uint8Array, global: boolean): void {
    const all = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    let at = 0;
    while (at < all.length) {
      const space = all.indexOf(0x20, at);
      const length = space < 0 ? Number.NaN : Number(all.toString("latin1", at, space));
      const end = at + length;
      if (!Number.isInteger(length) || length < 5 || end > all.length || all[end - 1] !== 0x0a) {
        throw this.#invalid("has a damaged pax header");
      }
      const equals = all.indexOf(0x3d, space);
      if (equals < 0 || equals >= end) throw this.#invalid("has a pax record without a value");
      this.#paxRecord(all.toString("latin1", space + 1, equals), all.toString("latin1", equals + 1, end - 1), global);
      at = end;
    }
  }

  #paxRecord(key: string, value: string, global: boolean): void {
    const isOurs = ["path", "linkpath", "size"].includes(key) || key.startsWith("GNU.sparse.");
    if (!isOurs) return;
    if (global) throw this.#invalid(`sets ${key} for all its entries`);
    if (value.includes("\0")) throw this.#invalid(`has a NUL in a ${key}`);
    if (key === "path") this.#next.name = value;
    else if (key === "GNU.sparse.name") this.#next.sparseName = value;
    else if (key === "linkpath") this.#next.link = value;
    else if (key === "size") this.#next.storedBytes = this.#decimal(value, key);
    else if (key === "GNU.sparse.size" || key === "GNU.sparse.realsize")
      this.#next.sizeBytes = this.#decimal(value, key);
  }

  #decimal(value: string, key: string): number {
    const number = Number(value);
    if (!/^\d{1,16}$/.test(value) || !Number.isSafeInteger(number))
      throw this.#invalid(`has the ${key} ${JSON.stringify(value)}`);
    return number;
  }

  /** Octal text, or with the top bit set a big-endian number (GNU). */
  #number(block: Uint8Array, offset: number, length: number, what: string): number {
    const first = block[offset] ?? 0;
    if (first >= 0x80) {
      let value = first & 0x7f;
      for (let at = offset + 1; at < offset + length; at++) value = value * 256 + (block[at] ?? 0);
      if (!Number.isSafeInteger(value)) throw this.#invalid(`has a ${what} that is negative or beyond all measure`);
      return value;
    }
    const digits = text(block, offset, length).trim();
    if (!/^[0-7]*$/.test(digits)) throw this.#invalid(`has the ${what} ${JSON.stringify(digits)}`);
    return digits === "" ? 0 : Number.parseInt(digits, 8);
  }

  #checkSum(block: Uint8Array): void {
    let sum = 0;
    for (let at = 0; at < BLOCK; at++) sum += at >= 148 && at < 156 ? 0x20 : (block[at] ?? 0);
    const stated = this.#number(block, 148, 8, "header checksum");
    if (sum !== stated) throw this.#invalid(`has a header whose checksum is ${sum}, not ${stated}`);
  }

  #invalid(what: string): MayflyError {
    const where = this.#lastName === "" ? "at its start" : `at or after the entry ${JSON.stringify(this.#lastName)}`;
    return new MayflyError("image_invalid", `Cannot unpack ${this.label}: it ${what} (${where})`, {
      details: { entry: this.#lastName },
    });
  }
}

/** A field's text up to its first NUL, as latin-1. */
function text(bytes: Uint8Array, offset: number, length: number): string {
  const field = Buffer.from(bytes.buffer, bytes.byteOffset + offset, length);
  const end = field.indexOf(0);
  return field.toString("latin1", 0, end < 0 ? length : end);
}
