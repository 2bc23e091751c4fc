/** For tests: archives in the format of an initramfs (cpio "newc", Linux' Documentation/driver-api/early-userspace/buffer-format.rst). */

/** A file in an archive. */
export interface CpioEntry {
  name: string;
  /** With type bits. */
  mode: number;
  data: Uint8Array;
}

const HEADER_BYTES = 110;
const FIELD_DIGITS = 8;
const TRAILER = "TRAILER!!!";

/** The entries of an archive, or of several one after the other. */
export function readCpio(bytes: Uint8Array): CpioEntry[] {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const entries: CpioEntry[] = [];
  const padded = (at: number) => (at + 3) & ~3;
  for (let at = 0; at + HEADER_BYTES <= buffer.length; ) {
    if (buffer.toString("latin1", at, at + 6) !== "070701") {
      at += 4; // Zeroes between archives.
      continue;
    }
    const field = (index: number) =>
      Number.parseInt(buffer.toString("latin1", at + 6 + index * 8, at + 14 + index * 8), 16);
    const [mode, size, nameBytes] = [field(1), field(6), field(11)];
    const name = buffer.toString("utf8", at + HEADER_BYTES, at + HEADER_BYTES + nameBytes - 1);
    const start = padded(at + HEADER_BYTES + nameBytes);
    if (name !== TRAILER) entries.push({ name, mode, data: buffer.subarray(start, start + size) });
    at = padded(start + size);
  }
  return entries;
}

/** An archive of some entries, owned by root. Appended to another, its files take the place of the other's. */
export function writeCpio(entries: readonly CpioEntry[]): Buffer {
  const trailer = { name: TRAILER, mode: 0, data: new Uint8Array(0) };
  const parts = [...entries, trailer].map(({ name, mode, data }, index) => {
    const nameBytes = Buffer.from(`${name}\0`);
    const fields = [index + 1, mode, 0, 0, 1, 0, data.length, 0, 0, 0, 0, nameBytes.length, 0];
    const header = `070701${fields.map((value) => value.toString(16).padStart(FIELD_DIGITS, "0")).join("")}`;
    return Buffer.concat([pad(Buffer.concat([Buffer.from(header), nameBytes])), pad(data)]);
  });
  return Buffer.concat(parts);
}

function pad(bytes: Uint8Array): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(-bytes.length & 3)]);
}
