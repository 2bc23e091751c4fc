import { expect, test } from "bun:test";
import { CLONE_STAGES, StageClock } from "./stages.ts";

test("stages add up to the whole, and one that was left out has no time", async () => {
  const clock = new StageClock();
  for (const stage of CLONE_STAGES) {
    if (stage === "agent") continue;
    await new Promise((resolve) => setTimeout(resolve, 2));
    clock.end(stage);
  }
  const { agent, ...measured } = clock.stages;
  expect(agent).toBeUndefined();
  const sum = Object.values(measured).reduce((total, ms) => total + ms, 0);
  expect(Object.values(measured).every((ms) => ms >= 1)).toBe(true);
  expect(Math.abs(sum - clock.elapsedMs)).toBeLessThan(2);
});

test("a clock may have begun before it was made", () => {
  const clock = new StageClock(performance.now() - 50);
  clock.end("plan");
  expect(clock.stages.plan).toBeGreaterThanOrEqual(50);
  expect(clock.elapsedMs).toBeGreaterThanOrEqual(50);
});
