/** One thing done to several operands. */
import { expect, test } from "bun:test";
import { outcomes } from "./each.ts";

test.each([
  [1, ["begin a", "end a", "begin b", "end b", "begin c", "end c"]],
  [2, ["begin a", "begin b", "end b", "end a", "begin c", "end c"]],
  [9, ["begin a", "begin b", "begin c", "end b", "end a", "end c"]],
])("%d at once: all are done, and told in their order", async (atOnce, order) => {
  const seen: string[] = [];
  const turns: Record<string, number> = { a: 3, b: 1, c: 5 };
  const act = async (operand: string) => {
    seen.push(`begin ${operand}`);
    for (let turn = 0; turn < (turns[operand] ?? 0); turn++) await Promise.resolve();
    seen.push(`end ${operand}`);
    if (operand === "b") throw new Error("b fails");
    return operand.toUpperCase();
  };
  const told: unknown[] = [];
  for await (const outcome of outcomes(["a", "b", "c"], act, atOnce)) {
    told.push([outcome.operand, outcome.status === "fulfilled" ? outcome.value : String(outcome.reason)]);
  }
  expect(told).toEqual([
    ["a", "A"],
    ["b", "Error: b fails"],
    ["c", "C"],
  ]);
  expect(seen).toEqual(order);
});
