import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MayflyError } from "../contract/errors.ts";
import type { TemplateId } from "../contract/ids.ts";
import type { Fingerprint } from "../contract/machine.ts";
import { TemplateStore, type TemplateWorkspace } from "./store.ts";

const fingerprint: Fingerprint = {
  qemuVersion: "10.0.2",
  qemuBinary: "/qemu 1 2",
  accelerator: "tcg",
  cpuModel: "max",
  hostCpu: "",
  machineProfile: "p",
  memoryMiB: 1,
  vcpus: 1,
  kernelSha256: "a".repeat(64),
  initramfsSha256: "b".repeat(64),
  kernelCommandLine: "c",
};
const ID: TemplateId = `tpl_${"a".repeat(26)}`;
const uid = process.getuid?.() ?? 0;
const gid = process.getgid?.() ?? 0;
const parts = { id: ID, fingerprint, fingerprintHash: "f".repeat(64), gid, ownerUid: uid };

/** Fills a workspace as a parent does. */
async function fill({ memoryPath, deviceStatePath }: TemplateWorkspace): Promise<undefined> {
  const memory = Buffer.alloc(1 << 20);
  memory.write("first", 0);
  memory.write("later", 500_000);
  writeFileSync(memoryPath, memory);
  writeFileSync(deviceStatePath, "device state");
}

async function failure(promise: Promise<unknown>): Promise<MayflyError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof MayflyError) return error;
  throw new Error(`expected a MayflyError, got ${error}`);
}

describe.skipIf(uid !== 0)("the store (needs root, which gives files away)", () => {
  let stateDir: string;
  let store: TemplateStore;
  const inside = (name = "") => join(stateDir, "templates", name);
  beforeEach(() => {
    stateDir = mkdtempSync(join(tmpdir(), "mayfly-store-"));
    store = new TemplateStore(stateDir);
  });
  afterEach(() => rmSync(stateDir, { recursive: true, force: true }));

  test("publishes a template whole, trimmed and sealed", async () => {
    const manifest = await store.publish(parts, fill);
    expect(manifest.memory).toMatchObject({ sizeBytes: 1 << 20, nonZeroPages: 2 });
    expect(manifest.memory.allocatedBytes).toBeLessThan(64 * 1024);
    expect(await store.list()).toEqual([ID]);
    expect(readdirSync(inside(ID)).sort()).toEqual(["device-state", "manifest.json", "memory"]);
    expect(statSync(inside(`${ID}/memory`)).mode & 0o777).toBe(0o440);
    const loaded = await store.load(ID);
    expect(loaded.manifest).toEqual(manifest);
    expect(Buffer.from(loaded.deviceState).toString()).toBe("device state");
    expect(readFileSync(loaded.memoryPath).subarray(500_000, 500_005).toString()).toBe("later");
    loaded.check();
    expect(await store.verify(ID)).toEqual([]);
  });

  test("leaves nothing of a build that fails", async () => {
    const broken = async (workspace: TemplateWorkspace) => {
      await fill(workspace);
      throw new MayflyError("boot_failed", "no");
    };
    expect((await failure(store.publish(parts, broken))).code).toBe("boot_failed");
    expect(readdirSync(inside())).toEqual([]);
    expect((await failure(store.publish(parts, async () => undefined))).code).toBe("template_corrupt");
    expect(readdirSync(inside())).toEqual([]);
  });

  test("shows nothing before it is complete", async () => {
    const seen: string[][] = [];
    await store.publish(parts, async (workspace) => {
      await fill(workspace);
      seen.push(await store.list());
      expect((await failure(store.load(ID))).code).toBe("template_not_found");
    });
    expect(seen).toEqual([[]]);
  });

  test("says what is wrong with a template, and with what is none", async () => {
    expect((await failure(store.load(ID))).code).toBe("template_not_found");
    expect((await failure(store.verify(ID))).code).toBe("template_not_found");
    await store.publish(parts, fill);
    const damage = async (name: string, change: (path: string) => void) => {
      const path = inside(`${ID}/${name}`);
      renameSync(path, `${path}.kept`);
      change(path);
      const error = await failure(store.load(ID));
      const problems = await store.verify(ID);
      rmSync(path, { force: true });
      renameSync(`${path}.kept`, path);
      expect(problems).toEqual([error.message]);
      return `${error.code}: ${error.message}`;
    };
    expect(await damage("device-state", (path) => writeFileSync(path, "device stat"))).toMatch(
      /^template_corrupt: .*11 bytes, manifest requires 12/,
    );
    expect(await damage("device-state", (path) => writeFileSync(path, "device stale"))).toContain("checksum");
    expect(await damage("device-state", () => undefined)).toContain("device-state is missing");
    expect(await damage("manifest.json", () => undefined)).toContain("manifest.json is missing");
    expect(await damage("manifest.json", (path) => writeFileSync(path, "{}"))).toContain("no checksum");
    expect(await damage("memory", (path) => writeFileSync(path, "short"))).toContain("5 bytes");
    expect(await damage("memory", () => undefined)).toContain("missing");
    await store.load(ID);
  });

  test("does not take one template for another", async () => {
    await store.publish(parts, fill);
    const other = `tpl_${"b".repeat(26)}`;
    renameSync(inside(ID), inside(other));
    expect((await failure(store.load(other))).message).toContain(`belongs to ${ID}`);
  });

  test("finds changed memory by its checksum", async () => {
    await store.publish(parts, fill);
    chmodSync(inside(`${ID}/memory`), 0o600);
    const memory = readFileSync(inside(`${ID}/memory`));
    memory.write("!", 700_000);
    writeFileSync(inside(`${ID}/memory`), memory);
    expect((await store.load(ID)).id).toBe(ID);
    expect((await store.verify(ID)).join()).toContain("memory has checksum");
  });

  test("notices at each clone that the memory file is another one", async () => {
    await store.publish(parts, fill);
    const loaded = await store.load(ID);
    const path = loaded.memoryPath;
    renameSync(path, `${path}.old`);
    expect(() => loaded.check()).toThrow("is gone");
    writeFileSync(path, Buffer.alloc(1 << 20));
    expect(() => loaded.check()).toThrow("was replaced");
    writeFileSync(path, "x");
    expect(() => loaded.check()).toThrow("1 bytes, manifest requires 1048576");
  });

  test("removes whole templates, and sweeps up after removals and builds that were interrupted", async () => {
    await store.publish(parts, fill);
    await store.remove(ID);
    expect(readdirSync(inside())).toEqual([]);
    await store.remove(ID);
    for (const name of [`.unfinished-${ID}-1`, `.unfinished-removed-${ID}`])
      mkdirSync(inside(name), { recursive: true });
    await store.publish(parts, fill);
    expect((await store.sweep()).length).toBe(2);
    expect(readdirSync(inside())).toEqual([ID]);
  });
});
