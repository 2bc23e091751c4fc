import { expect, test } from "bun:test";
import { NAME_PATTERN } from "../contract/ids.ts";
import { freeName } from "./names.ts";

test("a name is valid and free", () => {
  const taken = new Set<string>();
  for (let index = 0; index < 300; index++) {
    const name = freeName((other) => taken.has(other));
    expect(name).toMatch(new RegExp(NAME_PATTERN));
    expect(taken.has(name)).toBe(false);
    taken.add(name);
  }
});

test("when two words do not do, a number is added", () => {
  const always = () => 0;
  const first = freeName(() => false, always);
  expect(first).toMatch(/^[a-z]+-[a-z]+$/);
  const taken = new Set([first, `${first}-2`]);
  expect(freeName((name) => taken.has(name), always)).toBe(`${first}-3`);
});
