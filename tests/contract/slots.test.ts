/** Slots whose uids own the user namespaces of others: nobody else gets such a uid as long as they are there. */
import { afterEach, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { Slots } from "../../src/engine/slots.ts";
import { describeVms, newDirectory } from "../support/engine-host.ts";

describeVms("slots of QEMUs that were copied", () => {
  const runDir = newDirectory("slots");
  const open = () => new Slots(runDir, 900_000, `mayfly-test-slots-${process.pid}`);
  afterEach(() => open().close());

  test("are free when neither they nor their copies are in use", () => {
    const slots = open();
    const parent = slots.take();
    const copy = slots.take(parent);
    const ofCopy = slots.take(copy);
    expect([parent, copy, ofCopy].map(({ number, owners }) => [number, owners])).toEqual([
      [0, []],
      [1, [0]],
      [2, [1, 0]],
    ]);
    slots.release(parent);
    slots.release(copy);
    expect([parent, copy].map(({ directory }) => existsSync(directory))).toEqual([false, false]);
    const other = slots.take();
    expect(other.number).toBe(3);
    slots.release(ofCopy);
    expect([slots.take(), slots.take(), slots.take()].map(({ number }) => number)).toEqual([0, 1, 2]);
    for (const number of [0, 1, 2, 3]) slots.release(slots.reserve(number, []));
    expect(slots.take().number).toBe(0);
    slots.release(slots.reserve(0, []));
  });

  test("stay what they are for the next daemon, which removes what is left of an owner that has ended", () => {
    const before = open();
    const parent = before.take();
    const copies = [before.take(parent), before.take(parent)];
    // The parent ends with its daemon.
    const slots = open();
    const adopted = copies.map(({ number, owners }) => slots.reserve(number, owners));
    slots.sweep(() => undefined);
    expect(existsSync(parent.directory)).toBe(false);
    expect(copies.map(({ directory }) => existsSync(directory))).toEqual([true, true]);
    const other = slots.take();
    expect(other.number).toBe(3);
    const [first, second] = adopted;
    if (first === undefined || second === undefined) throw new Error("there are two");
    slots.release(first);
    const next = slots.take();
    expect(next.number).toBe(first.number);
    slots.release(second);
    expect(slots.take().number).toBe(parent.number);
    for (const number of [0, 1, 3]) slots.release(slots.reserve(number, []));
  });

  test("are as they were when what was reserved is not wanted", () => {
    const slots = open();
    slots.unreserve(slots.reserve(5, [4, 3]));
    for (let number = 0; number < 6; number++) expect(slots.take().number).toBe(number);
    for (let number = 0; number < 6; number++) slots.release(slots.reserve(number, []));
  });
});
