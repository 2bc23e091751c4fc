import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import {
  archiveBase,
  SNAPSHOT_ID as ID,
  importHost,
  sampleSnapshot,
  sampleTemplate,
  TEMPLATE_ID,
} from "../../tests/support/snapshots.ts";
import { MayflyError } from "../contract/errors.ts";
import { memberHeader, memberPadding, readMemberHeader } from "../sys/tar-members.ts";
import { encodeManifest } from "../template/manifest.ts";
import { TemplateStore } from "../template/store.ts";
import { exportSnapshot, type ImportHost, importSnapshot, incompatible } from "./archive.ts";
import type { SnapshotManifest } from "./manifest.ts";
import { SnapshotStore } from "./store.ts";

async function failure(promise: Promise<unknown>): Promise<MayflyError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof MayflyError) return error;
  throw new Error(`expected a MayflyError, got ${error}`);
}

/** A state directory. */
class State implements Disposable {
  readonly directory = mkdtempSync(join(tmpdir(), "mayfly-archive-"));
  readonly snapshots = new SnapshotStore(this.directory);
  readonly templates = new TemplateStore(this.directory);
  readonly host: ImportHost = importHost(this.templates);

  /** Names of everything in the stores. */
  get contents(): string[] {
    return ["snapshots", "templates"].flatMap((name) => {
      try {
        return readdirSync(join(this.directory, name));
      } catch {
        return [];
      }
    });
  }

  [Symbol.dispose](): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}

const isRoot = process.getuid?.() === 0;
describe.skipIf(!isRoot)("archives of snapshots (need root, which gives files away)", () => {
  let here: State;
  let there: State;
  let manifest: SnapshotManifest;
  let path: string;
  beforeEach(async () => {
    [here, there] = [new State(), new State()];
    path = join(here.directory, "archive.tar");
    manifest = await sampleSnapshot(here.snapshots, await sampleTemplate(here.templates), { disks: ["scratch"] });
  });
  afterEach(() => {
    here[Symbol.dispose]();
    there[Symbol.dispose]();
  });
  const exportAll = async () => {
    await exportSnapshot(here.snapshots, ID, path, { base: await archiveBase(here.templates, TEMPLATE_ID) });
    return readFileSync(path);
  };
  const bytesOf = (state: State, name: string) => readFileSync(join(state.directory, name));

  test("bring a snapshot and its base to another host, every byte of them", async () => {
    let counted = 0;
    await exportSnapshot(
      here.snapshots,
      ID,
      path,
      { base: await archiveBase(here.templates, TEMPLATE_ID) },
      {
        onBytes: (bytes) => {
          expect(bytes).toBeGreaterThan(counted);
          counted = bytes;
        },
      },
    );
    expect(counted).toBeGreaterThan(640 * 4096);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(await importSnapshot(there.snapshots, path, there.host)).toEqual(manifest);
    expect(await there.snapshots.verify(ID)).toEqual([]);
    expect(await there.templates.verify(TEMPLATE_ID)).toEqual([]);
    expect((await there.templates.load(TEMPLATE_ID)).manifest.madeFor).toEqual({ kind: "import", snapshotId: ID });
    for (const name of [
      `snapshots/${ID}/pages`,
      `snapshots/${ID}/disks/scratch.raw`,
      `templates/${TEMPLATE_ID}/memory`,
    ]) {
      expect(Buffer.compare(bytesOf(there, name), bytesOf(here, name))).toBe(0);
      const [blocksThere, blocksHere] = [there, here].map(({ directory }) => statSync(join(directory, name)).blocks);
      expect(Math.abs((blocksThere ?? 0) - (blocksHere ?? 0))).toBeLessThan(64);
    }
    expect(statSync(join(there.directory, `templates/${TEMPLATE_ID}/memory`)).mode & 0o777).toBe(0o440);
  });

  test("are read by tar and zstd", async () => {
    await exportAll();
    const listed = Bun.spawnSync(["tar", "-tf", path]);
    expect(listed.stdout.toString().trim().split("\n")).toEqual([
      "manifest.json",
      "base/manifest.json",
      "base/device-state",
      "base/memory.zst",
      "device-state",
      "pages.zst",
      "disks/scratch.raw.zst",
    ]);
    const pages = Bun.spawnSync(["sh", "-c", 'tar -xOf "$0" pages.zst | zstd -dc', path]);
    if (Bun.which("zstd") !== null) {
      expect(Buffer.compare(pages.stdout, bytesOf(here, `snapshots/${ID}/pages`))).toBe(0);
    }
  });

  test("without the base need it there, and say which", async () => {
    await exportSnapshot(here.snapshots, ID, path, {});
    const error = await failure(importSnapshot(there.snapshots, path, there.host));
    expect({ code: error.code, message: error.message }).toMatchObject({ code: "template_not_found" });
    expect(error.message).toContain(manifest.base.memory.sha256);
    expect(there.contents).toEqual([]);
    const base = await archiveBase(here.templates, TEMPLATE_ID);
    await there.templates.adopt(
      TEMPLATE_ID,
      { ...base, fillMemory: async (to) => writeFileSync(to, readFileSync(base.memoryPath)) },
      { gid: 0, snapshotId: ID },
    );
    await importSnapshot(there.snapshots, path, there.host);
    expect(there.contents).toEqual([ID, TEMPLATE_ID]);
  });

  test("do not replace a base or a snapshot that is there", async () => {
    await exportAll();
    const inode = statSync(join(here.directory, `templates/${TEMPLATE_ID}/memory`)).ino;
    expect((await failure(importSnapshot(here.snapshots, path, here.host))).code).toBe("name_in_use");
    await here.snapshots.remove(ID);
    await importSnapshot(here.snapshots, path, here.host);
    expect(statSync(join(here.directory, `templates/${TEMPLATE_ID}/memory`)).ino).toBe(inode);
    const other = `snap_${"c".repeat(26)}` as const;
    const renamed = {
      ...here.host,
      accept: async () => ({ id: other, gid: 0 }),
      takeImage: async () => ({ name: "two" }),
    };
    expect(await importSnapshot(here.snapshots, path, renamed)).toMatchObject({ id: other, vm: { name: "two" } });
    expect(await here.snapshots.verify(other)).toEqual([]);
  });

  test("that another host cannot use are refused with what differs, before anything is kept", async () => {
    await exportAll();
    const differences = ["qemuVersion: 10.0.2 in the snapshot, 9.2.0 here"];
    const accept = async (given: SnapshotManifest) => Promise.reject(incompatible(given, differences));
    const error = await failure(importSnapshot(there.snapshots, path, { ...there.host, accept }));
    expect(error).toMatchObject({ code: "snapshot_incompatible", details: { problems: differences } });
    expect(error.message).toContain("9.2.0 here");
    expect(there.contents).toEqual([]);
  });

  test("are not written over a file, nor left when they fail or are interrupted", async () => {
    writeFileSync(path, "mine");
    expect((await failure(exportAll())).code).toBe("file_operation_failed");
    expect(readFileSync(path, "utf8")).toBe("mine");
    rmSync(path);
    const nowhere = join(here.directory, "no/where");
    expect((await failure(exportSnapshot(here.snapshots, ID, nowhere, {}))).message).toContain("no such directory");
    const abort = new AbortController();
    const stopped = exportSnapshot(
      here.snapshots,
      ID,
      path,
      { base: await archiveBase(here.templates, TEMPLATE_ID) },
      {
        signal: abort.signal,
        onBytes: () => abort.abort(),
      },
    );
    expect((await failure(stopped)).code).toBe("cancelled");
    expect((await failure(exportSnapshot(here.snapshots, `snap_${"z".repeat(26)}`, path, {}))).code).toBe(
      "snapshot_not_found",
    );
    expect(readdirSync(here.directory).sort()).toEqual(["snapshots", "templates"]);
  });

  test("whose import is interrupted leave nothing", async () => {
    await exportAll();
    for (const after of [1, 300_000, 900_000]) {
      const abort = new AbortController();
      const options = {
        signal: abort.signal,
        onBytes: (bytes: number) => {
          if (bytes > after) abort.abort();
        },
      };
      expect((await failure(importSnapshot(there.snapshots, path, there.host, options))).code).toBe("cancelled");
      expect(there.contents).toEqual([]);
    }
  });

  test("damaged anywhere, cut anywhere, or with more behind them are refused, and nothing of them stays", async () => {
    const whole = await exportAll();
    const flipped = fc.tuple(fc.nat({ max: whole.length - 1 }), fc.integer({ min: 1, max: 255 })).map(([at, bits]) => {
      const bytes = Buffer.from(whole);
      bytes[at] = (bytes[at] ?? 0) ^ bits;
      return bytes;
    });
    const cut = fc.nat({ max: whole.length - 1 }).map((length) => whole.subarray(0, length));
    const grown = fc.uint8Array({ minLength: 1 }).map((more) => Buffer.concat([whole, more]));
    const codes = new Set<string>();
    await fc.assert(
      fc.asyncProperty(fc.oneof(flipped, cut, grown), async (bytes) => {
        writeFileSync(path, bytes);
        try {
          const read = await importSnapshot(there.snapshots, path, there.host);
          // What tar keeps of a file beside its name and size, and padding, means nothing here.
          expect(read).toEqual(manifest);
          expect(await there.snapshots.verify(ID)).toEqual([]);
          await there.snapshots.remove(ID);
          await there.templates.remove(TEMPLATE_ID);
        } catch (error) {
          if (!(error instanceof MayflyError)) throw error;
          codes.add(error.code);
        }
        expect(there.contents).toEqual([]);
      }),
      { numRuns: 30 },
    );
    expect([...codes].filter((code) => !["snapshot_corrupt", "template_corrupt"].includes(code))).toEqual([]);
  }, 60_000);

  test("with a member that unpacks to more than it says, or says too much, are refused before room is made", async () => {
    const whole = await exportAll();
    const bomb = await Bun.zstdCompress(Buffer.alloc(1 << 20));
    const frames = new Uint8Array(Buffer.concat(Array.from({ length: 1000 }, () => Buffer.from(bomb))));
    for (const [offset, bytes, frame] of [
      [0, 1 << 20, frames],
      [0, 4096, bomb],
      [0, 0xffff_ffff, bomb],
      [2 ** 52, 1 << 20, bomb],
      [(8 << 20) - 4096, 1 << 20, bomb],
    ] as const) {
      const prefix = Buffer.alloc(24);
      prefix.writeUInt32LE(0x184d2a50);
      prefix.writeUInt32LE(16, 4);
      prefix.writeBigUInt64LE(BigInt(offset), 8);
      prefix.writeUInt32LE(bytes, 16);
      prefix.writeUInt32LE(frame.length, 20);
      writeFileSync(path, replaceMember(whole, "base/memory.zst", Buffer.concat([prefix, frame])));
      const error = await failure(importSnapshot(there.snapshots, path, there.host));
      expect({ code: error.code, message: error.message }).toMatchObject({ code: "snapshot_corrupt" });
      expect(error.message).toContain("base/memory.zst: ");
      expect(there.contents).toEqual([]);
    }
  });

  test("with members that nobody expects, or in another order, are refused", async () => {
    const whole = await exportAll();
    for (const [name, as] of [
      ["pages.zst", "../../etc/passwd"],
      ["device-state", "pages.zst"],
      ["disks/scratch.raw.zst", "disks/other.raw.zst"],
      ["base/memory.zst", "base/memory"],
    ]) {
      writeFileSync(path, renameMember(whole, name ?? "", as ?? ""));
      expect((await failure(importSnapshot(there.snapshots, path, there.host))).code).toBe("snapshot_corrupt");
      expect(there.contents).toEqual([]);
    }
    writeFileSync(path, "");
    expect((await failure(importSnapshot(there.snapshots, path, there.host))).code).toBe("snapshot_corrupt");
    expect((await failure(importSnapshot(there.snapshots, here.directory, there.host))).code).toBe(
      "file_operation_failed",
    );
  });

  test("whose base is another than the snapshot names are refused, and the base does not stay", async () => {
    const whole = await exportAll();
    const other = new State();
    const foreign = { ...manifest.base, memory: { ...manifest.base.memory, sha256: "0".repeat(64) } };
    await sampleSnapshot(other.snapshots, foreign, { disks: ["scratch"] });
    const lie = readFileSync(join(other.directory, `snapshots/${ID}/manifest.json`));
    writeFileSync(path, replaceMember(whole, "manifest.json", lie));
    const error = await failure(importSnapshot(there.snapshots, path, there.host));
    expect({ code: error.code, contents: there.contents }).toEqual({ code: "snapshot_corrupt", contents: [] });
    other[Symbol.dispose]();
  });

  test("whose base has the id of another template here leave that one alone", async () => {
    const whole = await exportAll();
    await sampleTemplate(there.templates, 7);
    const before = bytesOf(there, `templates/${TEMPLATE_ID}/memory`);
    expect((await failure(importSnapshot(there.snapshots, path, there.host))).code).toBe("snapshot_corrupt");
    expect(there.contents).toEqual([TEMPLATE_ID]);
    expect(Buffer.compare(bytesOf(there, `templates/${TEMPLATE_ID}/memory`), before)).toBe(0);
    await there.templates.remove(TEMPLATE_ID);
    const text = readFileSync(join(here.directory, `templates/${TEMPLATE_ID}/manifest.json`), "utf8");
    const { magic: _magic, format: _format, checksum: _checksum, ...body } = JSON.parse(text);
    const foreign = Buffer.from(encodeManifest({ ...body, id: `tpl_${"c".repeat(26)}` }));
    writeFileSync(path, replaceMember(whole, "base/manifest.json", foreign));
    expect((await failure(importSnapshot(there.snapshots, path, there.host))).code).toBe("template_corrupt");
    expect(there.contents).toEqual([]);
  });
});

/** The members of a tar file. */
function members(bytes: Buffer): { name: string; data: Buffer }[] {
  const found: { name: string; data: Buffer }[] = [];
  for (let at = 0; ; ) {
    const header = readMemberHeader(bytes.subarray(at, at + 512));
    if (header === undefined || header === "end") return found;
    found.push({ name: header.name, data: bytes.subarray(at + 512, at + 512 + header.sizeBytes) });
    at += 512 + header.sizeBytes + memberPadding(header.sizeBytes);
  }
}

function tarOf(list: readonly { name: string; data: Buffer }[]): Buffer {
  const parts = list.flatMap(({ name, data }) => [
    memberHeader(name, data.length),
    data,
    Buffer.alloc(memberPadding(data.length)),
  ]);
  return Buffer.concat([...parts, Buffer.alloc(1024)]);
}

function replaceMember(bytes: Buffer, name: string, data: Buffer): Buffer {
  return tarOf(members(bytes).map((member) => (member.name === name ? { name, data } : member)));
}

function renameMember(bytes: Buffer, name: string, as: string): Buffer {
  return tarOf(members(bytes).map((member) => (member.name === name ? { ...member, name: as } : member)));
}
