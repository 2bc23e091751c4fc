import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MayflyError } from "../contract/errors.ts";
import { isRoot } from "../sys/paths.ts";
import { findTool, runTool } from "../sys/tool.ts";
import { DirectoryStore } from "./directories.ts";
import { ScratchStore } from "./scratch.ts";

const ONE = { id: "vm_1", name: "one" };
const TWO = { id: "vm_2", name: "two" };
const possible = isRoot() && findTool("mkfs.erofs") !== undefined && findTool("mkfs.ext4") !== undefined;

let stateDir: string;
let source: string;
beforeEach(() => {
  stateDir = mkdtempSync(join(tmpdir(), "mayfly-directories-"));
  source = mkdtempSync(join(tmpdir(), "mayfly-source-"));
});
afterEach(() => {
  for (const path of [stateDir, source]) rmSync(path, { recursive: true, force: true });
});

describe.skipIf(!possible)("snapshots of directories (need root and erofs-utils)", () => {
  let store: DirectoryStore;
  beforeEach(async () => {
    store = await open();
  });
  const open = async () => {
    const opened = new DirectoryStore(stateDir, 4321);
    await opened.load();
    return opened;
  };
  const there = () => readdirSync(join(stateDir, "directories")).sort();
  /** A directory of the system's, in which nothing changes. */
  const SETTLED = ["/etc/skel", "/etc/alternatives", "/usr/share/perl"].find((path) => existsSync(path)) ?? "/etc/skel";

  test("have all that is in the directory, and are for one group only", async () => {
    const script =
      "mkdir a; echo text > a/file; chown 5:6 a/file; ln -s .. a/loop; ln -s loop/loop odd; mkfifo fifo; mknod null c 1 3";
    await runTool(["sh", "-ec", script], { cwd: source });
    const { path } = await store.snapshot(source, ONE);
    const { stdout } = await runTool(["dump.erofs", "--path=/a/file", path]);
    expect(stdout).toMatch(/Uid: 5 {3}Gid: 6/);
    expect((await runTool(["dump.erofs", "--ls", "--path=/", path])).stdout).toMatch(/fifo.*null.*odd/s);
    expect([statSync(path).uid, statSync(path).gid, statSync(path).mode & 0o777]).toEqual([0, 4321, 0o440]);
  });

  test("are made once for a directory that has been still for a while, also for several at once", async () => {
    const [one, two] = await Promise.all([store.snapshot(SETTLED, ONE), store.snapshot(SETTLED, TWO)]);
    expect(two).toEqual(one);
    expect((await store.snapshot(`${SETTLED}/../${SETTLED.split("/").at(-1)}/`, ONE)).key).toBe(one.key);
    expect(there()).toEqual([one.key]);
    expect(store.keyOf(one.path)).toBe(one.key);
    store = await open();
    expect((await store.snapshot(SETTLED, ONE)).key).toBe(one.key);
    await store.release(one.key, ONE.id);
    expect(there()).toEqual([one.key]);
  });

  test("of a directory that was changed a moment ago are not used again, since it could change again without a sign", async () => {
    writeFileSync(join(source, "a"), "1");
    const one = await store.snapshot(source, ONE);
    const two = await store.snapshot(source, TWO);
    expect(two.key).not.toBe(one.key);
    await store.release(one.key, ONE.id);
    expect(there()).toEqual([two.key]);
    await store.release(two.key, TWO.id);
    expect(there()).toEqual([]);
  });

  test("notice every change, whatever times are set", async () => {
    const keys = new Set([(await store.snapshot(source, ONE)).key]);
    writeFileSync(join(source, "a"), "1");
    utimesSync(join(source, "a"), 1, 1);
    utimesSync(source, 1, 1);
    keys.add((await store.snapshot(source, ONE)).key);
    writeFileSync(join(source, "a"), "2");
    utimesSync(join(source, "a"), 1, 1);
    keys.add((await store.snapshot(source, ONE)).key);
    expect(keys.size).toBe(3);
  });

  test("stay while a VM has them, and beyond that only a few, or until they are pruned", async () => {
    const held = await store.snapshot(SETTLED, ONE);
    expect(await store.prune()).toEqual([]);
    expect((await store.usage()).reclaimableBytes).toBe(0);
    await store.release(held.key, ONE.id);
    expect((await store.usage()).reclaimableBytes).toBeGreaterThan(0);
    for (let index = 0; index < 12; index++) mkdirSync(join(stateDir, "directories", String(index).padStart(64, "0")));
    store = await open();
    store.hold("0".repeat(64), TWO);
    const again = await store.snapshot(SETTLED, ONE);
    await store.release(again.key, ONE.id);
    expect(there()).toHaveLength(9);
    expect(there()).toContain("0".repeat(64));
    expect(await store.prune()).toHaveLength(8);
    expect(there()).toEqual(["0".repeat(64)]);
  });

  test("are not pruned under who gets one meanwhile", async () => {
    const keys = [0, 1, 2].map((index) => String(index).padStart(64, "0"));
    for (const key of keys) mkdirSync(join(stateDir, "directories", key));
    store = await open();
    const pruned = store.prune();
    store.hold(keys[2] ?? "", TWO);
    expect(await pruned).toEqual(keys.slice(0, 2));
    expect(there()).toEqual(keys.slice(2));
    const made = await store.snapshot(SETTLED, ONE);
    await store.release(made.key, ONE.id);
    const both = await Promise.all([store.prune(), store.snapshot(SETTLED, ONE)]);
    expect(existsSync(both[1].path)).toBe(true);
  });

  test("are given up when nobody wants them any more, which does not end another's", async () => {
    const aborting = new AbortController();
    for (let index = 0; index < 50; index++)
      writeFileSync(join(source, String(index)), Buffer.alloc(100_000, `${index}`));
    const given = store.snapshot(SETTLED, ONE, aborting.signal).then(
      () => "made",
      (error: MayflyError) => error.code,
    );
    const wanted = store.snapshot(SETTLED, TWO);
    aborting.abort();
    expect(["cancelled", "made"]).toContain(await given);
    expect(existsSync((await wanted).path)).toBe(true);
    const cancelled = await failure(store.snapshot(source, ONE, AbortSignal.abort()));
    expect(cancelled.code).toBe("cancelled");
    expect(there().filter((name) => name.startsWith("."))).toEqual([]);
  });

  test("are refused of what is no directory or has another file system in it", async () => {
    expect((await failure(store.snapshot("/no/such", ONE))).code).toBe("file_not_found");
    for (const path of ["/etc/passwd", "/dev", stateDir, join(stateDir, ".."), "/"]) {
      expect((await failure(store.snapshot(path, ONE))).code).toBe("invalid_argument");
    }
    expect(there()).toEqual([]);
  });

  test("that were interrupted are removed at the next start", async () => {
    mkdirSync(join(stateDir, "directories", ".unfinished-x"));
    store = await open();
    expect(there()).toEqual([]);
  });
});

describe.skipIf(!possible)("scratch disks (need root and e2fsprogs)", () => {
  test("share one file system for each size", async () => {
    const store = new ScratchStore(stateDir);
    await store.load();
    const make = (name: string, mebibytes: number) => store.make(join(stateDir, name), mebibytes * 2 ** 20, ONE);
    const [one, two] = await Promise.all([make("one", 64), make("two", 64)]);
    const three = await make("three", 63.5);
    expect(new Set([one.basePath, two.basePath, three.basePath]).size).toBe(1);
    expect(statSync(one.basePath).mode & 0o777).toBe(0o444);
    expect((await make("four", 128)).basePath).not.toBe(one.basePath);
    expect(await store.prune()).toEqual([]);
    store.release(one.basePath, ONE.id);
    expect(await store.prune()).toEqual([one.basePath]);
    expect(await store.usage()).toMatchObject({ count: 1, reclaimableBytes: 0 });
  });
});

async function failure(promise: Promise<unknown>): Promise<MayflyError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof MayflyError) return error;
  throw new Error(`expected a MayflyError, got ${error}`);
}
