import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { AnonymousMemory } from "./anonymous-memory.ts";

const MIB = 1 << 20;

/** Memory that is there of the mappings in a range of addresses, in bytes. In those of the whole process is other tests' garbage. */
function residentBytes(start: number, end: number): number {
  let inRange = false;
  let bytes = 0;
  for (const line of readFileSync("/proc/self/smaps", "latin1").split("\n")) {
    const [, from, to] = /^([0-9a-f]+)-([0-9a-f]+) /.exec(line) ?? [];
    if (from !== undefined && to !== undefined) {
      inRange = Number.parseInt(from, 16) < end && Number.parseInt(to, 16) > start;
    } else if (inRange && line.startsWith("Rss:")) bytes += Number(/\d+/.exec(line)?.[0]) * 1024;
  }
  return bytes;
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
  using huge = new AnonymousMemory(64 * 1024 * MIB);
  const { address, sizeBytes } = huge;
  const resident = () => residentBytes(address, address + sizeBytes);
  expect(resident()).toBeLessThan(8 * MIB);
  await huge.populate(96 * MIB);
  expect(resident()).toBeGreaterThan(90 * MIB);
  huge.view(40_000 * MIB, 10).fill(1);
  huge[Symbol.dispose]();
  expect(resident()).toBeLessThan(48 * MIB);
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
