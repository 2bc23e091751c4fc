/** Advisory locks between processes: flock(2) on a file, which the kernel frees with the process that holds it. */

import { closeSync, mkdirSync, openSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import { MayflyError } from "../contract/errors.ts";
import { tryLock as flock, unlock } from "./libc.ts";
import { runTool } from "./tool.ts";

/** A held lock. Disposing it frees it; so does the end of the process, however it ends. */
export interface FileLock extends Disposable {
  readonly path: string;
}

/**
 * Takes the lock on `path` (made if missing, its directory too) if nobody has it.
 * Node and Bun open files close-on-exec, so no child process keeps the lock when this one ends. One that is just being started has the descriptor for
 * some moments longer: the kernel closes it after it has let us go on. So the lock is freed by name, not by closing.
 *
 * @param options.removeAfter the file goes when the lock is freed: for one of many names.
 * @returns the lock, or `undefined` if another process or another call in this one holds it.
 */
export function tryLockFile(path: string, options: { removeAfter?: boolean } = {}): FileLock | undefined {
  mkdirSync(dirname(path), { recursive: true });
  const fd = openSync(path, "a", 0o600);
  if (!flock(fd)) {
    closeSync(fd);
    return undefined;
  }
  let held = true;
  return {
    path,
    [Symbol.dispose]() {
      if (!held) return;
      held = false;
      // Whoever waits opens the path anew.
      if (options.removeAfter) rmSync(path, { force: true });
      unlock(fd);
      closeSync(fd);
    },
  };
}

/**
 * Waits for the lock on `path`. The wait is a `flock` program's, whose end tells that the lock was free a moment ago;
 * the lock is then tried again, so that nothing polls.
 *
 * @param options.onWait called once if somebody else has the lock.
 * @throws MayflyError `cancelled` when `signal` aborts, `deadline_exceeded` after `deadlineMs`, `tool_missing` without flock.
 */
export async function waitForLock(
  path: string,
  options: { deadlineMs: number; signal?: AbortSignal; onWait?: () => void; removeAfter?: boolean },
): Promise<FileLock> {
  const end = performance.now() + options.deadlineMs;
  let told = false;
  while (true) {
    const lock = tryLockFile(path, options);
    if (lock !== undefined) return lock;
    if (!told) options.onWait?.();
    told = true;
    const leftMs = end - performance.now();
    if (leftMs <= 0) {
      throw new MayflyError(
        "deadline_exceeded",
        `Cannot lock ${path}: it was still taken after ${options.deadlineMs} ms`,
        {
          details: { path },
        },
      );
    }
    await untilFree(path, leftMs, options.signal);
  }
}

async function untilFree(path: string, leftMs: number, signal: AbortSignal | undefined): Promise<void> {
  try {
    await runTool(["flock", path, "true"], { deadlineMs: leftMs, ...(signal === undefined ? {} : { signal }) });
  } catch (error) {
    if (!(error instanceof MayflyError) || error.code !== "deadline_exceeded") throw error;
  }
}
