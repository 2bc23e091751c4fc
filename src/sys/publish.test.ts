import { afterEach, beforeEach, expect, test } from "bun:test";
import { MayflyError } from "../contract/errors.ts";
import { tryLockFile, waitForLock } from "./lock.ts";
import { isRoot, makeDirectory, namesIn, readOptional, removePath, temporaryDirectory, writeText } from "./paths.ts";
import { exists, publishDirectory, publishFile, sweepUnfinished } from "./publish.ts";
import { runTool } from "./tool.ts";

let work = "";

beforeEach(async () => {
  work = await temporaryDirectory("mayfly-publish");
});

afterEach(async () => {
  await removePath(work);
});

async function failure(action: Promise<unknown>): Promise<MayflyError> {
  const error = await action.catch((reason: unknown) => reason);
  if (error instanceof MayflyError) return error;
  throw new Error(`it did not fail as expected: ${error}`);
}

test("a file is replaced whole, and nothing lies beside it", async () => {
  await publishFile(`${work}/f`, "one");
  await publishFile(`${work}/f`, "two");
  expect(await readOptional(`${work}/f`)).toBe("two");
  expect(await namesIn(work)).toEqual(["f"]);
});

test("of two that publish one directory, one wins and the other is dropped", async () => {
  const build = (text: string) => publishDirectory(`${work}/d`, (path) => writeText(`${path}/f`, text));
  const won = await Promise.all([build("a"), build("b")]);
  expect(won.filter(Boolean)).toHaveLength(1);
  expect(await namesIn(work)).toEqual(["d"]);
});

test("a directory whose making fails is not there", async () => {
  const failing = publishDirectory(`${work}/d`, async (path) => {
    await writeText(`${path}/f`, "x");
    throw new Error("no");
  });
  expect(failing).rejects.toThrow("no");
  await failing.catch(() => undefined);
  expect(await namesIn(work)).toEqual([]);
});

test("what a killed publishing leaves is swept", async () => {
  const program = `import { publishDirectory } from ${JSON.stringify(`${import.meta.dir}/publish.ts`)};
    await publishDirectory(${JSON.stringify(`${work}/d`)}, async () => process.kill(process.pid, "SIGKILL"));`;
  await writeText(`${work}/program.ts`, program);
  expect((await failure(runTool([process.execPath, `${work}/program.ts`]))).details.signal).toBe("SIGKILL");
  expect(await exists(`${work}/d`)).toBe(false);
  expect(await sweepUnfinished(work)).toHaveLength(1);
  expect(await namesIn(work)).toEqual(["program.ts"]);
});

test.skipIf(!isRoot())("a full disk is said as such, and nothing is left", async () => {
  await makeDirectory(`${work}/small`);
  await runTool(["mount", "-t", "tmpfs", "-o", "size=1m", "mayfly-test", `${work}/small`]);
  try {
    const big = Buffer.alloc(2 ** 21);
    expect((await failure(publishFile(`${work}/small/f`, big))).code).toBe("disk_full");
    const directory = publishDirectory(`${work}/small/d`, (path) => writeText(`${path}/f`, big));
    expect((await failure(directory)).code).toBe("disk_full");
    expect(await namesIn(`${work}/small`)).toEqual([]);
  } finally {
    await runTool(["umount", `${work}/small`]);
  }
});

test("a lock is held once, waited for, and free when its process is killed", async () => {
  const path = `${work}/lock`;
  const mine = tryLockFile(path);
  expect(mine).toBeDefined();
  expect(tryLockFile(path)).toBeUndefined();
  let waited = 0;
  const next = waitForLock(path, { deadlineMs: 10_000, onWait: () => waited++ });
  mine?.[Symbol.dispose]();
  mine?.[Symbol.dispose]();
  using _held = await next;
  expect(waited).toBeLessThanOrEqual(1);
  expect((await failure(waitForLock(path, { deadlineMs: 50 }))).code).toBe("deadline_exceeded");
  const abort = new AbortController();
  const cancelled = failure(
    waitForLock(path, { deadlineMs: 10_000, signal: abort.signal, onWait: () => abort.abort() }),
  );
  expect((await cancelled).code).toBe("cancelled");
});

test("a child process does not keep a lock", async () => {
  const program = `import { tryLockFile } from ${JSON.stringify(`${import.meta.dir}/lock.ts`)};
    tryLockFile(${JSON.stringify(`${work}/lock`)});
    Bun.spawn(["sleep", "5"], { detached: true, stdio: ["ignore", "ignore", "ignore"] }).unref();
    process.kill(process.pid, "SIGKILL");`;
  await writeText(`${work}/program.ts`, program);
  await failure(runTool([process.execPath, `${work}/program.ts`]));
  // The child has the descriptor until it has become its program.
  const untilMs = performance.now() + 2_000;
  let lock = tryLockFile(`${work}/lock`);
  for (; lock === undefined && performance.now() < untilMs; lock = tryLockFile(`${work}/lock`)) await Bun.sleep(5);
  expect(lock).toBeDefined();
});
