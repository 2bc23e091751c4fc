import { expect, test } from "bun:test";
import { portsOptions } from "./options.ts";

test("ten rounds unless told", () => {
  expect(portsOptions([], true)).toEqual({ rounds: 10, samplesPath: undefined, enforce: false, json: true });
  expect(portsOptions(["--rounds", "3", "--samples=f", "--enforce"], false)).toEqual({
    rounds: 3,
    samplesPath: "f",
    enforce: true,
    json: false,
  });
  expect(portsOptions(["--help"], false)).toBeUndefined();
  expect(() => portsOptions(["--rounds", "0"], false)).toThrow("no number above 0");
  expect(() => portsOptions(["fast"], false)).toThrow("unexpected argument");
});
