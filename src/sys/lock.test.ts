import { afterEach, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readlinkSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { tryLockFile } from "./lock.ts";

const directory = mkdtempSync(join(tmpdir(), "mayfly-lock-"));
afterEach(() => rmSync(directory, { recursive: true, force: true }));

function descriptorOf(path: string): number {
  const found = readdirSync("/proc/self/fd").find((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`) === path;
    } catch {
      return false;
    }
  });
  if (found === undefined) throw new Error(`${path} is not open`);
  return Number(found);
}

test("a lock is had by one at a time", () => {
  const path = join(directory, "held");
  const lock = tryLockFile(path);
  expect(tryLockFile(path)).toBeUndefined();
  lock?.[Symbol.dispose]();
  using again = tryLockFile(path);
  expect(again).toBeDefined();
});

test("a lock is free at once, also when a child has its descriptor still", async () => {
  const path = join(directory, "inherited");
  const lock = tryLockFile(path);
  const child = Bun.spawn(["sleep", "60"], { stdio: [descriptorOf(path), "ignore", "ignore"] });
  try {
    expect(tryLockFile(path)).toBeUndefined();
    lock?.[Symbol.dispose]();
    using again = tryLockFile(path);
    expect(again).toBeDefined();
  } finally {
    child.kill();
    await child.exited;
  }
});
