import { expect, test } from "bun:test";
import { withTimersDelayed } from "./saved-timers.ts";

const MS = 1_000_000n;
const NOW = 7_000n * MS;
const ONE_SHOT = 0xec;
const PERIODIC = 0x200ec;

/** A section as QEMU writes it. */
function section(number: number, name: string, version: number, fields: Buffer): Buffer {
  const head = Buffer.alloc(4 + 1 + name.length + 8);
  head.writeUInt32BE(number, 0);
  head.writeUInt8(name.length, 4);
  head.write(name, 5);
  head.writeUInt32BE(version, head.length - 4);
  const foot = Buffer.alloc(5, 0x7e);
  foot.writeUInt32BE(number, 1);
  return Buffer.concat([Buffer.of(4), head, fields, foot]);
}

function clock(nowNs: bigint): Buffer {
  const fields = Buffer.alloc(24, 0x55);
  fields.writeBigInt64BE(nowNs, 16);
  return section(0, "timer", 2, fields);
}

/** A local APIC: everything but its timer is noise. */
function apic(expiryNs: bigint, entry = ONE_SHOT, { number = 7, version = 3 } = {}): Buffer {
  const fields = Buffer.alloc(181, 0xa7);
  fields.writeUInt32BE(entry, 109);
  fields.writeBigInt64BE(expiryNs, 165);
  fields.writeBigInt64BE(expiryNs, 173);
  return section(number, "apic", version, fields);
}

/** A whole state: what precedes and follows does not matter. */
function state(...parts: Buffer[]): Buffer {
  return Buffer.concat([Buffer.from("QEVM\0\0\0\u0003"), ...parts, Buffer.from([4, 0, 0, 0, 9, 3, 1, 2, 3])]);
}

test("a timer that is to fire soon fires later, and nothing else changes", () => {
  const before = state(clock(NOW), apic(NOW + 2n * MS));
  const kept = Buffer.from(before);
  expect(withTimersDelayed(before, 60n * MS)).toEqual(state(clock(NOW), apic(NOW + 60n * MS)));
  expect(before).toEqual(kept);
});

test("one that should have fired when the guest was stopped fires later too", () => {
  expect(withTimersDelayed(state(clock(NOW), apic(NOW - 1n)), MS)).toEqual(state(clock(NOW), apic(NOW + MS)));
});

test("each CPU has its own", () => {
  const second = { number: 8 };
  const before = state(clock(NOW), apic(NOW + MS), apic(NOW + 9n * MS, ONE_SHOT, second));
  const after = state(clock(NOW), apic(NOW + 5n * MS), apic(NOW + 9n * MS, ONE_SHOT, second));
  expect(withTimersDelayed(before, 5n * MS)).toEqual(after);
});

const LEFT: readonly [string, Buffer][] = [
  ["one that fires later anyway", state(clock(NOW), apic(NOW + 60n * MS))],
  ["one that is not set", state(clock(NOW), apic(-1n))],
  ["one that fires again and again", state(clock(NOW), apic(NOW, PERIODIC))],
  ["an APIC of another version", state(clock(NOW), apic(NOW, ONE_SHOT, { version: 4 }))],
  ["an APIC whose end is somewhere else", state(clock(NOW), apic(NOW).subarray(0, 190))],
  ["an APIC without a clock", state(apic(NOW))],
  ["a name that stands in something else", state(clock(NOW), Buffer.from("\u0004apic"))],
  ["nothing", Buffer.alloc(0)],
];

test.each(LEFT)("%s is left as it is", (_, before) => {
  expect(withTimersDelayed(before, 60n * MS)).toBe(before);
});

test("a clock at the end of time overflows as the guest's own would", () => {
  const end = 2n ** 63n - 1n;
  expect(() => withTimersDelayed(state(clock(end), apic(end)), 60n * MS)).not.toThrow();
});
