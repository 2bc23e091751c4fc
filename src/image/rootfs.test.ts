import { afterEach, beforeEach, expect, test } from "bun:test";
import { MayflyError } from "../contract/errors.ts";
import { makeDirectory, readBytes, removePath, temporaryDirectory, writeText } from "../sys/paths.ts";
import { findTool, runTool } from "../sys/tool.ts";
import { detectRootfs } from "./rootfs.ts";
import { buildTar } from "./tar-builder.ts";

let work = "";
let path = "";

beforeEach(async () => {
  work = await temporaryDirectory("mayfly-rootfs");
  path = `${work}/image`;
  await makeDirectory(`${work}/tree`);
  await writeText(`${work}/tree/file`, "x".repeat(20_000));
});

afterEach(async () => {
  await removePath(work);
});

async function invalid(): Promise<MayflyError> {
  const error = await detectRootfs(path).catch((reason: unknown) => reason);
  if (error instanceof MayflyError) return error;
  throw new Error(`it was taken: ${JSON.stringify(error)}`);
}

test.skipIf(findTool("mkfs.erofs") === undefined)("erofs is recognised, and found cut off", async () => {
  await runTool(["mkfs.erofs", "--quiet", path, `${work}/tree`]);
  const { fstype, sizeBytes } = await detectRootfs(path);
  expect(fstype).toBe("erofs");
  await writeText(path, (await readBytes(path)).subarray(0, sizeBytes - 4096));
  expect((await invalid()).message).toContain(`${sizeBytes} bytes, the file has ${sizeBytes - 4096}`);
});

test.skipIf(findTool("mkfs.ext4") === undefined)(
  "ext4 is recognised, found cut off, and refused with a journal to replay",
  async () => {
    await runTool(["mkfs.ext4", "-q", path, "8M"]);
    expect(await detectRootfs(path)).toEqual({ fstype: "ext4", sizeBytes: 8 * 2 ** 20 });
    const good = await readBytes(path);
    const dirty = Buffer.from(good);
    dirty.writeUInt32LE(dirty.readUInt32LE(1024 + 0x60) | 4, 1024 + 0x60);
    await writeText(path, dirty);
    expect((await invalid()).details.remedy).toContain("e2fsck");
    await writeText(path, good.subarray(0, 2 ** 20));
    expect((await invalid()).message).toContain("cut off");
  },
);

test.each<[string, Uint8Array, string]>([
  ["nothing", new Uint8Array(0), "empty"],
  ["text", Buffer.alloc(5000, "text "), "neither"],
  ["a tarball", buildTar([{ name: "a", content: "x".repeat(3000) }]), "mayfly image import"],
  ["gzip", Buffer.from("\x1f\x8b\x08 and more", "latin1"), "mayfly image import"],
  ["qcow2", Buffer.from("QFI\xfb and more", "latin1"), "qcow2"],
  ["a program", Buffer.from("\x7fELF and more", "latin1"), "ELF"],
  ["an absurd erofs superblock", superblock(0xe0f5e1e2, 0), "2^200"],
])("%s is refused, and said what it is", async (_what, bytes, message) => {
  await writeText(path, bytes);
  const error = await invalid();
  expect(error.code).toBe("rootfs_invalid");
  expect(error.message).toContain(message);
});

test("a directory and a missing file are told apart", async () => {
  expect((await invalid()).code).toBe("file_not_found");
  await makeDirectory(path);
  expect((await invalid()).message).toContain("directory");
});

/** A superblock of which only the magic is right. */
function superblock(magic: number, offset: number): Uint8Array {
  const bytes = Buffer.alloc(8192, 200);
  bytes.writeUInt32LE(magic, 1024 + offset);
  return bytes;
}
