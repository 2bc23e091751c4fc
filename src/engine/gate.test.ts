import { expect, test } from "bun:test";
import { Deadline } from "../sys/deadline.ts";
import { Gate } from "./gate.ts";

const settle = () => new Promise((resolve) => setImmediate(resolve));

test("so many are let through at a time, in the order they came", async () => {
  const gate = new Gate(2);
  const inside: number[] = [];
  const order: number[] = [];
  const leaves: (() => void)[] = [];
  let most = 0;
  const enter = async (number: number) => {
    using _place = await gate.enter();
    inside.push(number);
    order.push(number);
    most = Math.max(most, inside.length);
    await new Promise<void>((resolve) => leaves.push(resolve));
    inside.splice(inside.indexOf(number), 1);
  };
  const all = [0, 1, 2, 3, 4].map(enter);
  await settle();
  expect(inside).toEqual([0, 1]);
  expect(gate.idle).toBe(false);
  for (let left = 0; left < 5; left++) {
    leaves.shift()?.();
    await settle();
  }
  await Promise.all(all);
  expect(order).toEqual([0, 1, 2, 3, 4]);
  expect(most).toBe(2);
  expect(gate.idle).toBe(true);
});

test("a place is given back once, also by who fails", async () => {
  const gate = new Gate(1);
  const place = await gate.enter();
  place[Symbol.dispose]();
  place[Symbol.dispose]();
  const failing = async () => {
    using _place = await gate.enter();
    throw new Error("inside");
  };
  await expect(failing()).rejects.toThrow("inside");
  const last = await gate.enter();
  expect(gate.idle).toBe(false);
  last[Symbol.dispose]();
  expect(gate.idle).toBe(true);
});

test("a place that comes after its deadline passes to the next", async () => {
  const gate = new Gate(1);
  const first = await gate.enterBy(Deadline.after(1_000), "a place");
  const cancelled = new AbortController();
  const second = gate.enterBy(Deadline.after(Number.POSITIVE_INFINITY, cancelled.signal), "a place");
  const third = gate.enter();
  cancelled.abort();
  await expect(second).rejects.toMatchObject({ code: "cancelled" });
  first[Symbol.dispose]();
  (await third)[Symbol.dispose]();
  await settle();
  expect(gate.idle).toBe(true);
});
