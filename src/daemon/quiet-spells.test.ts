import { expect, test } from "bun:test";
import { FakeClock } from "../../tests/support/fake-clock.ts";
import { QuietSpells } from "./quiet-spells.ts";

function watched() {
  const clock = new FakeClock();
  const atMs: number[] = [];
  return { clock, atMs, spells: new QuietSpells(clock, 1000, () => atMs.push(clock.now())) };
}

test("it is done once, a while after the last thing that happened", async () => {
  const { clock, atMs, spells } = watched();
  await clock.pass(5000);
  expect(atMs).toEqual([]);
  spells.touch();
  await clock.pass(600);
  spells.touch();
  await clock.pass(900);
  expect(atMs).toEqual([]);
  await clock.pass(60_000);
  expect(atMs).toEqual([6600]);
  spells.touch();
  await clock.pass(1000);
  expect(atMs).toEqual([6600, 67_500]);
});

test("things in a row have one timer, and put it off", async () => {
  const { clock, atMs, spells } = watched();
  for (let count = 0; count < 50; count += 1) {
    spells.touch();
    expect(clock.pending).toBe(1);
    await clock.pass(500);
  }
  expect(atMs).toEqual([]);
  await clock.pass(500);
  expect(atMs).toEqual([25_500]);
  expect(clock.pending).toBe(0);
});

test("nothing is done after its end", async () => {
  const { clock, atMs, spells } = watched();
  spells.touch();
  spells[Symbol.dispose]();
  spells.touch();
  await clock.pass(5000);
  expect(atMs).toEqual([]);
  expect(clock.pending).toBe(0);
});
