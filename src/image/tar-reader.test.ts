import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { MayflyError } from "../contract/errors.ts";
import { buildTar, entryBytes } from "./tar-builder.ts";
import { type TarEntry, TarReader } from "./tar-reader.ts";

function read(tarball: Uint8Array, chunkBytes = 1 << 20): TarEntry[] {
  const entries: TarEntry[] = [];
  const reader = new TarReader((entry) => entries.push(entry));
  for (let at = 0; at < tarball.length; at += chunkBytes) reader.push(tarball.subarray(at, at + chunkBytes));
  reader.end();
  return entries;
}

function refusal(action: () => unknown): MayflyError {
  try {
    action();
  } catch (error) {
    if (error instanceof MayflyError) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}

describe("reading", () => {
  const many = buildTar([
    { name: "a/", type: "5" },
    { name: "a/f", content: "x".repeat(1000) },
    {
      name: "short",
      pax: { path: `long/${"n".repeat(300)}`, linkpath: "ignored", "SCHILY.xattr.user.a": "b=c\nd" },
      content: "y",
    },
    { name: "l", type: "2", link: "../x" },
    { name: "h", type: "1", link: "a/f" },
    { name: "dev", type: "3", major: 1, minor: 3 },
  ]);

  test("names, types, links and sizes", () => {
    expect(read(many)).toEqual([
      { name: "a/", type: "directory", link: "", sizeBytes: 0 },
      { name: "a/f", type: "file", link: "", sizeBytes: 1000 },
      { name: `long/${"n".repeat(300)}`, type: "file", link: "", sizeBytes: 1 },
      { name: "l", type: "symlink", link: "../x", sizeBytes: 0 },
      { name: "h", type: "hardlink", link: "a/f", sizeBytes: 0 },
      { name: "dev", type: "character", link: "", sizeBytes: 0 },
    ]);
  });

  test("does not depend on where the chunks end", () => {
    const whole = read(many);
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 3000 }), (chunkBytes) => {
        expect(read(many, chunkBytes)).toEqual(whole);
      }),
      { numRuns: 60 },
    );
  });

  test("GNU long names", () => {
    const long = `${"d/".repeat(100)}f`;
    const tarball = Buffer.concat([
      entryBytes({ name: "././@LongLink", type: "L", content: `${long}\0` }),
      entryBytes({ name: long.slice(0, 99) }),
    ]);
    expect(read(tarball).map((entry) => entry.name)).toEqual([long]);
  });

  test("sparse files count with their holes", () => {
    const pax = {
      "GNU.sparse.major": "1",
      "GNU.sparse.minor": "0",
      "GNU.sparse.name": "big",
      "GNU.sparse.realsize": "5000000000000",
    };
    expect(read(buildTar([{ name: "GNUSparseFile.1/big", pax, content: "0\n" }]))).toEqual([
      { name: "big", type: "file", link: "", sizeBytes: 5_000_000_000_000 },
    ]);
  });

  test("what follows the end is not read", () => {
    const reader = new TarReader(() => {});
    const tarball = buildTar([{ name: "f" }]);
    expect(reader.push(Buffer.concat([tarball, Buffer.alloc(5000, 1)]))).toBe(tarball.length);
    expect(reader.ended).toBe(true);
  });

  test.each([
    ["cut off in a header", many.subarray(0, 700), "cut off"],
    ["cut off in data", many.subarray(0, 1600), "cut off"],
    ["a flipped bit", Buffer.from(many).fill(0x41, 0, 1), "checksum"],
    ["an unknown type", entryBytes({ name: "m", type: "M" }), "type"],
    ["data on a link", entryBytes({ name: "l", type: "2", link: "x", content: "data" }), "data on a symlink"],
    ["a huge extended header", entryBytes({ name: "x", type: "x", size: 2 ** 30 }), "extended header"],
    ["a damaged pax record", entryBytes({ name: "x", type: "x", content: "99 path=a\n" }), "pax"],
    ["a name for all entries", entryBytes({ name: "g", type: "g", content: "10 path=a\n" }), "path for all"],
    ["no tarball at all", Buffer.alloc(1024, "hello "), "checksum"],
  ])("%s is refused", (_what, tarball, message) => {
    const error = refusal(() => read(tarball));
    expect(error.code).toBe("image_invalid");
    expect(error.message).toContain(message);
  });

  test("random bytes and mutations give a typed error or entries, nothing else", () => {
    const mutation = fc.record({ at: fc.nat(many.length - 1), byte: fc.nat(255) });
    fc.assert(
      fc.property(fc.array(mutation, { minLength: 1, maxLength: 4 }), (mutations) => {
        const mutated = Buffer.from(many);
        for (const { at, byte } of mutations) mutated[at] = byte;
        try {
          read(mutated);
        } catch (error) {
          expect(error).toBeInstanceOf(MayflyError);
        }
      }),
      { numRuns: 300 },
    );
  });
});
