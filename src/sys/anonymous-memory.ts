/**
 * Large buffers outside of the collected heap, for copies of guest memory: made ready before they are needed (a fresh page costs more than the
 * copy into it), given back to the kernel at once.
 */
import { dlopen, FFIType, type Pointer, toArrayBuffer } from "bun:ffi";
import { MayflyError } from "../contract/errors.ts";

const { i32, i64, u64 } = FFIType;
const c = dlopen("libc.so.6", {
  mmap: { args: [u64, u64, i32, i32, i32, i64], returns: i64 },
  madvise: { args: [u64, u64, i32], returns: i32 },
}).symbols;

const READ_WRITE = 3;
const PRIVATE_ANONYMOUS_NORESERVE = 0x02 | 0x20 | 0x4000;
const DONTNEED = 4;
const HUGEPAGE = 14;
const POPULATE_WRITE = 23;
/** Size of a huge page: arenas begin at a multiple of it and grow by it. */
const HUGE_BYTES = 2 << 20;
/** Filled at once without yielding. */
const SLICE_BYTES = 4 * HUGE_BYTES;

/** Address ranges that are free: they stay mapped, without memory, so that no buffer that somebody still has can ever point to nothing. */
const free: Region[] = [];

interface Region {
  address: number;
  sizeBytes: number;
}

/**
 * A buffer of zeroes, which takes memory as it is filled: its size may be what could be needed at most. Disposing it gives its memory back; views of
 * it must not be used after that.
 */
export class AnonymousMemory implements Disposable {
  #region: Region | undefined;

  /** @param sizeBytes at least so many. @throws `limit_reached` if there is no room for it. */
  constructor(readonly sizeBytes: number) {
    this.#region = takeRegion(sizeBytes);
  }

  /** Where it begins, for system calls. */
  get address(): number {
    return this.#held().address;
  }

  /** A view of a part of it. */
  view(offset: number, length: number): Uint8Array<ArrayBuffer> {
    const { address } = this.#held();
    if (offset < 0 || length < 0 || offset + length > this.sizeBytes) {
      throw new MayflyError("internal", `${length} bytes at ${offset} are outside of a buffer of ${this.sizeBytes}`);
    }
    return length === 0 ? new Uint8Array(0) : new Uint8Array(toArrayBuffer((address + offset) as Pointer, 0, length));
  }

  /** Has memory behind the first `bytes` bytes, in slices between which others get their turn. One that cannot is no error: it comes later. */
  async populate(bytes: number): Promise<void> {
    for (let at = 0; at < bytes; at += SLICE_BYTES) {
      if (at > 0) await new Promise(setImmediate);
      if (this.#region === undefined) return;
      const length = Math.min(SLICE_BYTES, this.#region.sizeBytes - at);
      if (c.madvise(this.#region.address + at, length, POPULATE_WRITE) !== 0) return;
    }
  }

  [Symbol.dispose](): void {
    if (this.#region === undefined) return;
    c.madvise(this.#region.address, this.#region.sizeBytes, DONTNEED);
    free.push(this.#region);
    this.#region = undefined;
  }

  #held(): Region {
    if (this.#region === undefined)
      throw new MayflyError("internal", "A copy of guest memory was used after its release");
    return this.#region;
  }
}

function takeRegion(sizeBytes: number): Region {
  const wanted = Math.max(1, Math.ceil(sizeBytes / HUGE_BYTES)) * HUGE_BYTES;
  const fits = free.filter((region) => region.sizeBytes >= wanted).sort((a, b) => a.sizeBytes - b.sizeBytes)[0];
  // One that is much too large stays for those who need it.
  if (fits !== undefined && fits.sizeBytes <= 4 * wanted) {
    free.splice(free.indexOf(fits), 1);
    return fits;
  }
  const start = Number(c.mmap(0, wanted + HUGE_BYTES, READ_WRITE, PRIVATE_ANONYMOUS_NORESERVE, -1, 0));
  if (start <= 0) {
    throw new MayflyError(
      "limit_reached",
      `Cannot copy guest memory: there is no room for a buffer of ${wanted} bytes`,
    );
  }
  const address = Math.ceil(start / HUGE_BYTES) * HUGE_BYTES;
  c.madvise(address, wanted, HUGEPAGE);
  return { address, sizeBytes: wanted };
}
