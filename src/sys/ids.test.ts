import { expect, test } from "bun:test";
import fc from "fast-check";
import { ID_LENGTH, ID_RANDOM_OFFSET, shortId } from "../contract/ids.ts";
import { base32, newId, randomBytes } from "./ids.ts";

test("base32 is RFC 4648's, in lower case and without padding", () => {
  const examples = {
    "": "",
    f: "my",
    fo: "mzxq",
    foo: "mzxw6",
    foob: "mzxw6yq",
    fooba: "mzxw6ytb",
    foobar: "mzxw6ytboi",
  };
  for (const [text, encoded] of Object.entries(examples)) expect(base32(Buffer.from(text))).toBe(encoded);
});

test("base32 has five bits a character, and none is lost", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
      const bits = [...base32(bytes)].map((letter) =>
        "abcdefghijklmnopqrstuvwxyz234567".indexOf(letter).toString(2).padStart(5, "0"),
      );
      const wanted = [...bytes].map((byte) => byte.toString(2).padStart(8, "0")).join("");
      expect(bits.join("").slice(0, wanted.length)).toBe(wanted);
    }),
  );
});

test("ids have their prefix and length, and differ even when they are made at once", () => {
  const ids: string[] = [];
  for (let index = 0; index < 20; index++) ids.push(newId("vm"));
  for (const id of ids) expect(id).toMatch(new RegExp(`^vm_[a-z2-7]{${ID_LENGTH}}$`));
  expect(new Set(ids).size).toBe(20);
  expect(new Set(ids.map(shortId)).size).toBe(20);
  expect(ids.every((id) => id.slice(3 + ID_RANDOM_OFFSET).startsWith(shortId(id)))).toBe(true);
});

test("random bytes are as many as asked for, and differ", () => {
  expect(randomBytes(64).length).toBe(64);
  expect(Buffer.from(randomBytes(16)).equals(Buffer.from(randomBytes(16)))).toBe(false);
});
