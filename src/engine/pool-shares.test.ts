import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { PoolShares } from "./pool-shares.ts";

const root = (path: string) => ({ path, fstype: "erofs" }) as const;

/** Fills a pool as the pool does, and says what it holds. */
function filled(shares: PoolShares, members: (string | undefined)[], target: number): (string | undefined)[] {
  let held = [...members];
  for (let round = 0; round < 4 * target; round++) {
    const excess = new Set(shares.excess(held, target));
    held = held.filter((_, index) => !excess.has(index));
    if (held.length >= target) break;
    held.push(shares.next(held, target)?.path);
  }
  return held;
}

const count = (members: (string | undefined)[], member: string | undefined) =>
  members.filter((other) => other === member).length;

test("members are for anything until an image is asked for", () => {
  const shares = new PoolShares();
  shares.asked(undefined);
  expect(filled(shares, [], 4)).toEqual([undefined, undefined, undefined, undefined]);
});

describe("an image that is asked for", () => {
  test("gets half of the members, and loses them to the next one", () => {
    const shares = new PoolShares();
    const before = filled(shares, [], 4);
    shares.asked(root("/a"));
    const a = filled(shares, before.slice(1), 4);
    expect([count(a, "/a"), count(a, undefined)]).toEqual([2, 2]);
    shares.asked(root("/b"));
    const b = filled(shares, a, 4);
    expect([count(b, "/a"), count(b, "/b"), count(b, undefined)]).toEqual([0, 2, 2]);
  });

  test("keeps them while others ask for none, and for ten minutes", () => {
    let nowMs = 0;
    const shares = new PoolShares(() => nowMs);
    shares.asked(root("/a"));
    shares.asked(undefined);
    nowMs = 599_999;
    const held = filled(shares, [], 4);
    expect(count(held, "/a")).toBe(2);
    nowMs = 600_000;
    expect(filled(shares, held, 4)).toEqual([undefined, undefined, undefined, undefined]);
  });

  test("loses its share when no member can be made for it", () => {
    const shares = new PoolShares();
    shares.asked(root("/a"));
    shares.refused();
    expect(filled(shares, [], 2)).toEqual([undefined, undefined]);
  });

  test("has none in a pool of one", () => {
    const shares = new PoolShares();
    shares.asked(root("/a"));
    expect(filled(shares, [], 1)).toEqual([undefined]);
  });
});

test("whatever was there, filling ends with a full pool of the right shares", () => {
  const member = fc.constantFrom(undefined, "/a", "/b");
  fc.assert(
    fc.property(fc.array(member, { maxLength: 8 }), fc.integer({ min: 1, max: 8 }), member, (members, target, last) => {
      const shares = new PoolShares();
      shares.asked(last === undefined ? undefined : root(last));
      const held = filled(shares, members.slice(0, target), target);
      expect(held.length).toBe(target);
      expect(count(held, last)).toBe(last === undefined ? target : Math.floor(target / 2));
    }),
  );
});
