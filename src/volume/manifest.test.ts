import { expect, test } from "bun:test";
import fc from "fast-check";
import { MayflyError } from "../contract/errors.ts";
import { decodeVolumeManifest, encodeVolumeManifest } from "./manifest.ts";

const manifest = {
  name: "data",
  createdAt: "2026-01-02T03:04:05.000Z",
  labels: { a: "b" },
  anonymous: false,
  used: true,
};
const text = encodeVolumeManifest(manifest);

test("a manifest comes back as it was", () => expect(decodeVolumeManifest(text, "/m")).toEqual(manifest));

test("a damaged manifest is a typed error, never another manifest", () => {
  fc.assert(
    fc.property(fc.nat(text.length - 1), fc.constantFrom("", "x", "0", '"', "}", "\0"), (at, put) => {
      const damaged = text.slice(0, at) + put + text.slice(at + 1);
      try {
        expect(decodeVolumeManifest(damaged, "/m")).toEqual(manifest);
      } catch (error) {
        expect(error).toBeInstanceOf(MayflyError);
        expect(error).toMatchObject({ code: "store_corrupt", details: { path: "/m" } });
      }
    }),
  );
});
