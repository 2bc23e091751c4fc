import { expect, test } from "bun:test";
import { ALL_CAPABILITIES, capabilityMask } from "./capabilities.ts";

test("the default set is docker's", () => {
  // CapEff of `docker run`, as its documentation and /proc/self/status show it.
  expect(capabilityMask().toString(16)).toBe("a80425fb");
});

test.each([
  [["ALL"], [], ALL_CAPABILITIES],
  [[], ["ALL"], 0n],
  [["NET_ADMIN"], ["ALL"], 1n << 12n],
  [["cap_sys_admin"], [], 0xa80425fbn | (1n << 21n)],
  [[], ["CAP_CHOWN", "chown"], 0xa80425fan],
  [["ALL"], ["SYS_ADMIN"], ALL_CAPABILITIES & ~(1n << 21n)],
] as const)("add %j, drop %j", (add, drop, mask) => {
  expect(capabilityMask(add, drop)).toBe(mask);
});

test("an unknown name is refused", () => {
  expect(() => capabilityMask(["SYS_FLY"])).toThrow('capAdd has "SYS_FLY"');
});
