import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { AnonymousMemory } from "./anonymous-memory.ts";

const MIB = 1 << 20;

/** Memory that this process has, in bytes. */
function residentBytes(): number {
  return Number(readFileSync("/proc/self/statm", "utf8").split(" ")[1]) * 4096;
}

test("a buffer is zeroes, also one that had something before", () => {
  for (let round = 0; round < 3; round++) {
    using memory = new AnonymousMemory(3 * MIB);
    const view = memory.view(0, 3 * MIB);
    expect(view.every((byte) => byte === 0)).toBe(true);
    view.fill(round + 1);
    expect(memory.view(2 * MIB, 1)[0]).toBe(round + 1);
  }
});

test("it takes memory as it is filled or made ready, and gives it back", async () => {
  // So much that garbage of other tests in this process, collected meanwhile, does not matter.
  const before = residentBytes();
  using huge = new AnonymousMemory(64 * 1024 * MIB);
  expect(residentBytes() - before).toBeLessThan(64 * MIB);
  await huge.populate(512 * MIB);
  expect(residentBytes() - before).toBeGreaterThan(400 * MIB);
  huge.view(40_000 * MIB, 10).fill(1);
  huge[Symbol.dispose]();
  expect(residentBytes() - before).toBeLessThan(256 * MIB);
});

test("two at a time do not share anything", () => {
  using one = new AnonymousMemory(MIB);
  using two = new AnonymousMemory(MIB);
  one.view(0, MIB).fill(1);
  expect(two.view(0, MIB).every((byte) => byte === 0)).toBe(true);
});

test("what lies outside, and what was given back, is refused", () => {
  const memory = new AnonymousMemory(100);
  expect(memory.view(100, 0).length).toBe(0);
  for (const [offset, length] of [
    [0, 101],
    [-1, 2],
    [100, 1],
  ] as const) {
    expect(() => memory.view(offset, length)).toThrow("outside");
  }
  memory[Symbol.dispose]();
  memory[Symbol.dispose]();
  expect(() => memory.view(0, 1)).toThrow("after its release");
  expect(() => memory.address).toThrow("after its release");
});
