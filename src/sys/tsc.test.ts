import { expect, test } from "bun:test";
import { measureTscKHz } from "./tsc.ts";

test("the counter's rate is that of a processor, and the same each time", async () => {
  const rates = [await measureTscKHz(), await measureTscKHz(), await measureTscKHz()];
  for (const rate of rates) {
    expect(rate).toBeGreaterThan(400_000);
    expect(rate).toBeLessThan(10_000_000);
  }
  const [low = 0, high = 0] = [Math.min(...rates), Math.max(...rates)];
  expect((high - low) / high).toBeLessThan(200e-6);
});
