/** Builds tarballs byte by byte for tests, so that they can be wrong in any way. */

/** One entry of a built tarball; fields that are left out are those of a plain file. */
export interface BuiltEntry {
  name: string;
  type?: string;
  link?: string;
  content?: string | Uint8Array;
  mode?: number;
  uid?: number;
  gid?: number;
  /** Size that the header tells, if not the content's. */
  size?: number;
  /** Device numbers. */
  major?: number;
  minor?: number;
  /** Pax records that go before. */
  pax?: Readonly<Record<string, string>>;
}

const BLOCK = 512;

/** A whole tarball, with the two blocks of zeroes at its end. */
export function buildTar(entries: readonly BuiltEntry[]): Uint8Array {
  return Buffer.concat([...entries.map(entryBytes), Buffer.alloc(2 * BLOCK)]);
}

/** Header and padded content of one entry. */
export function entryBytes(entry: BuiltEntry): Uint8Array {
  const content = Buffer.from(entry.content ?? "");
  const parts: Uint8Array[] = [];
  if (entry.pax !== undefined) {
    const records = Object.entries(entry.pax).map(([key, value]) => paxRecord(key, value));
    parts.push(entryBytes({ name: "PaxHeader", type: "x", content: Buffer.from(records.join(""), "latin1") }));
  }
  parts.push(header(entry, content.length), content, Buffer.alloc((BLOCK - (content.length % BLOCK)) % BLOCK));
  return Buffer.concat(parts);
}

function header(entry: BuiltEntry, length: number): Uint8Array {
  const block = Buffer.alloc(BLOCK);
  block.write(entry.name, 0, 100, "latin1");
  octal(block, 100, 8, entry.mode ?? 0o644);
  octal(block, 108, 8, entry.uid ?? 0);
  octal(block, 116, 8, entry.gid ?? 0);
  octal(block, 124, 12, entry.size ?? length);
  octal(block, 136, 12, 1_000_000_000);
  block.write(entry.type ?? "0", 156, 1, "latin1");
  block.write(entry.link ?? "", 157, 100, "latin1");
  block.write("ustar\x0000", 257, 8, "latin1");
  octal(block, 329, 8, entry.major ?? 0);
  octal(block, 337, 8, entry.minor ?? 0);
  block.fill(0x20, 148, 156);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, 8, "latin1");
  return block;
}

function octal(block: Buffer, offset: number, length: number, value: number): void {
  block.write(`${value.toString(8).padStart(length - 1, "0")}\0`, offset, length, "latin1");
}

function paxRecord(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`;
  let length = rest.length;
  while (`${length}${rest}`.length !== length) length = `${length}${rest}`.length;
  return `${length}${rest}`;
}
