import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  chownSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MayflyError } from "../contract/errors.ts";
import { isRoot } from "../sys/paths.ts";
import { findTool, runTool } from "../sys/tool.ts";
import { makeExt4, readExt4 } from "./ext4.ts";
import { VolumeStore } from "./store.ts";

const MIB = 2 ** 20;
const ONE = { id: "vm_1", name: "one" };
const TWO = { id: "vm_2", name: "two" };
const possible = isRoot() && findTool("mkfs.ext4") !== undefined && findTool("unshare") !== undefined;

describe.skipIf(!possible)("volumes (need root and e2fsprogs)", () => {
  let stateDir: string;
  let store: VolumeStore;
  const inside = (...names: string[]) => join(stateDir, "volumes", ...names);
  const open = async () => {
    const opened = new VolumeStore(stateDir, () => 970_000);
    const problems = await opened.load();
    opened.takeBack();
    return { opened, problems };
  };

  beforeEach(async () => {
    stateDir = mkdtempSync(join(tmpdir(), "mayfly-volumes-"));
    await runTool(["chmod", "711", stateDir]);
    store = (await open()).opened;
  });
  afterEach(() => rmSync(stateDir, { recursive: true, force: true }));

  test("are made empty, sparse and clean, and are there after a restart", async () => {
    const made = await store.create({ name: "data", labels: { a: "b" } });
    expect(made).toMatchObject({
      name: "data",
      sizeBytes: 10 * 2 ** 30,
      labels: { a: "b" },
      anonymous: false,
      vmId: null,
    });
    expect(made.allocatedBytes).toBeLessThan(8 * MIB);
    expect(readExt4(store.dataPath("data"))).toEqual({ isClean: true, sizeBytes: 10 * 2 ** 30 });
    const { stdout } = await runTool(["debugfs", "-R", "ls -p /", store.dataPath("data")]);
    expect(stdout).not.toContain("lost+found");
    expect([statSync(inside("data")).mode & 0o777, statSync(inside("data", "data.ext4")).mode & 0o777]).toEqual([
      0o711, 0o600,
    ]);
    expect((await open()).opened.list()).toEqual([made]);
  });

  test("have whole mebibytes, within bounds", async () => {
    expect((await store.create({ name: "odd", sizeBytes: 16 * MIB + 1 })).sizeBytes).toBe(17 * MIB);
    for (const sizeBytes of [0, MIB, 9 * 2 ** 40]) {
      expect((await failure(store.create({ name: "wrong", sizeBytes }))).code).toBe("invalid_argument");
    }
    for (const name of ["", ".", "..", "a/b", "-a", "a".repeat(64)]) {
      expect((await failure(store.create({ name }))).code).toBe("invalid_argument");
    }
    expect(readdirSync(inside())).toEqual(["odd"]);
  });

  test("of one name are there once, however many ask for it at the same time", async () => {
    const [first, second] = await Promise.allSettled([store.create({ name: "same" }), store.create({ name: "same" })]);
    expect(first?.status).toBe("fulfilled");
    expect(second).toMatchObject({ status: "rejected", reason: { code: "name_in_use" } });
    await Promise.all([store.ensure("wanted"), store.ensure("wanted"), store.ensure("same")]);
    expect(readdirSync(inside()).sort()).toEqual(["same", "wanted"]);
  });

  test("are claimed by one VM, which is named to others", async () => {
    await store.create({ name: "data", sizeBytes: 16 * MIB });
    store.claim("data", ONE);
    store.claim("data", ONE);
    expect(store.get("data").vmId).toBe("vm_1");
    expect(thrown(() => store.claim("data", TWO))).toMatchObject({
      code: "resource_in_use",
      message: "Cannot give volume data to VM two: VM one (vm_1) has it",
    });
    expect((await failure(store.remove("data"))).message).toBe("Cannot remove volume data: VM one (vm_1) has it");
    expect((await failure(store.resize("data", 32 * MIB))).message).toBe(
      "Cannot resize volume data: VM one (vm_1) has it",
    );
    expect(store.unused(true)).toEqual([]);
    store.release("data", "vm_2");
    expect(() => store.claim("data", TWO)).toThrow();
    store.release("data", "vm_1");
    store.claim("data", TWO);
    expect(thrown(() => store.claim("none", ONE)).code).toBe("volume_not_found");
  });

  test("that a VM could need again are not removed, but for the VM that goes", async () => {
    await store.create({ name: "data", sizeBytes: 16 * MIB });
    store.usedBy = () => [ONE];
    expect((await failure(store.remove("data"))).message).toContain("VM one (vm_1) was started with it");
    expect(store.unused(true)).toEqual([]);
    await store.remove("data", "vm_1");
    expect(readdirSync(inside())).toEqual([]);
  });

  test("grow, and do not shrink", async () => {
    await store.create({ name: "data", sizeBytes: 16 * MIB });
    expect((await store.ready("data")).growsToBytes).toBeUndefined();
    expect((await store.resize("data", 40 * MIB)).sizeBytes).toBe(40 * MIB);
    expect((await store.ready("data")).growsToBytes).toBe(40 * MIB);
    const refused = await failure(store.resize("data", 39 * MIB));
    expect(refused.message).toBe(
      `Cannot resize volume data to ${39 * MIB} bytes: it has ${40 * MIB}, and can only grow`,
    );
    expect(store.get("data").sizeBytes).toBe(40 * MIB);
    await store.resize("data", 40 * MIB);
  });

  test("say once whether they are new", async () => {
    await store.create({ name: "data", sizeBytes: 16 * MIB });
    expect((await store.ready("data")).isNew).toBe(true);
    await store.markUsed("data");
    expect((await store.ready("data")).isNew).toBe(false);
    expect((await (await open()).opened.ready("data")).isNew).toBe(false);
  });

  test("that are not clean are mended by a user of their own, and belong to root again", async () => {
    await store.create({ name: "data", sizeBytes: 16 * MIB });
    const path = store.dataPath("data");
    const spoil = async (command: string) => runTool(["debugfs", "-w", "-R", command, path]);
    await spoil("set_super_value state 2");
    await spoil("set_block_group 0 free_blocks_count 5");
    expect(readExt4(path).isClean).toBe(false);
    await store.ready("data");
    expect(readExt4(path).isClean).toBe(true);
    expect([statSync(path).uid, statSync(path).mode & 0o777]).toEqual([0, 0o600]);
    await runTool(["e2fsck", "-fn", path]);
    expect((await runTool(["debugfs", "-R", "ls -p /", path])).stdout).not.toContain("lost+found");
  });

  test("that are damaged beyond that are refused and left as they are", async () => {
    await store.create({ name: "data", sizeBytes: 16 * MIB });
    const path = store.dataPath("data");
    await runTool(["debugfs", "-w", "-R", "set_super_value state 2", path]);
    await runTool(["debugfs", "-w", "-R", "clri <2>", path]);
    const error = await failure(store.ready("data"));
    expect(error).toMatchObject({ code: "store_corrupt", details: { remedy: `e2fsck ${path}` } });
    expect(statSync(path).uid).toBe(0);
    writeFileSync(path, Buffer.alloc(16 * MIB));
    expect((await failure(store.ready("data"))).message).toContain("it holds no ext4 file system");
    writeFileSync(path, "");
    expect((await failure(store.ready("data"))).message).toContain("it holds no ext4 file system");
  });

  test("whose manifest or data is damaged are left alone and told of", async () => {
    for (const name of ["whole", "flipped", "cut", "empty", "gone"]) await store.create({ name, sizeBytes: 16 * MIB });
    const manifest = (name: string) => inside(name, "manifest.json");
    writeFileSync(
      manifest("flipped"),
      readFileSync(manifest("flipped"), "utf8").replace('"used": false', '"used": true'),
    );
    writeFileSync(manifest("cut"), readFileSync(manifest("cut")).subarray(0, 50));
    rmSync(manifest("empty"));
    rmSync(inside("gone", "data.ext4"));
    const { opened, problems } = await open();
    expect(opened.list().map(({ name }) => name)).toEqual(["whole"]);
    expect(problems.map(({ name, error }) => `${name} ${error.code}`)).toEqual([
      "cut store_corrupt",
      "empty store_corrupt",
      "flipped store_corrupt",
      "gone store_corrupt",
    ]);
    expect(existsSync(inside("flipped", "data.ext4"))).toBe(true);
    expect((await failure(opened.create({ name: "flipped" }))).code).toBe("store_corrupt");
    expect(readdirSync(inside()).filter((name) => name.startsWith("."))).toEqual([]);
  });

  test("that nobody has claimed are root's when a daemon has started", async () => {
    for (const name of ["left", "kept"]) {
      await store.create({ name, sizeBytes: 16 * MIB });
      chownSync(store.dataPath(name), 900_001, 0);
    }
    const next = new VolumeStore(stateDir, () => 970_000);
    await next.load();
    next.claim("kept", ONE);
    next.takeBack();
    expect(["left", "kept"].map((name) => statSync(next.dataPath(name)).uid)).toEqual([0, 900_001]);
    expect(next.nameOf(next.dataPath("kept"))).toBe("kept");
    expect(next.nameOf("/elsewhere")).toBeUndefined();
  });
});

test.skipIf(!possible)("a file system without a journal is clean and empty too", async () => {
  const directory = mkdtempSync(join(tmpdir(), "mayfly-ext4-"));
  const path = join(directory, "image");
  await runTool(["truncate", "-s", "16M", path]);
  await makeExt4(path, false);
  expect(readExt4(path)).toEqual({ isClean: true, sizeBytes: 16 * MIB });
  await runTool(["e2fsck", "-n", path]);
  rmSync(directory, { recursive: true });
});

async function failure(promise: Promise<unknown>): Promise<MayflyError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof MayflyError) return error;
  throw new Error(`expected a MayflyError, got ${error}`);
}

function thrown(act: () => unknown): MayflyError {
  try {
    act();
  } catch (error) {
    if (error instanceof MayflyError) return error;
  }
  throw new Error("expected a MayflyError");
}
