import { expect, test } from "bun:test";
import { watchLogs } from "./logs.ts";

/** Logs that grow when told. */
function grower() {
  let grow = () => {};
  const log = {
    watch: (onGrowth: () => void) => {
      grow = onGrowth;
      return () => {};
    },
  };
  return { logs: { stdout: log, stderr: { watch: () => () => {} } }, grow: () => grow() };
}

test("a VM that ends right after its last output has ended", async () => {
  const ended = Promise.withResolvers<void>();
  const { logs, grow } = grower();
  const abort = new AbortController();
  const changes = watchLogs({ logs, ended: ended.promise }, abort.signal);
  grow();
  expect(await changes.next()).toBe(true);
  const next = changes.next();
  grow();
  abort.abort();
  expect([await next, await changes.next(), await changes.next()]).toEqual([false, false, false]);
});
