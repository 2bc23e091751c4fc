/** Layers and archives that are hostile: each is refused with the reason, and nothing of it is left. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { importRootfs } from "../../src/image/import.ts";
import { buildTar } from "../../src/image/tar-builder.ts";
import { unpackLayers } from "../../src/image/unpack.ts";
import { isRoot, writeText } from "../../src/sys/paths.ts";
import { exists } from "../../src/sys/publish.ts";
import { runTool } from "../../src/sys/tool.ts";
import { loadLayers, openImages, refusal, type TestImages } from "../support/image-store.ts";
import { dir, type HandMadeLayer, hard, link, packed, writeLayout } from "../support/oci-layout.ts";

let store: TestImages;

beforeEach(async () => {
  store = await openImages();
});

afterEach(async () => {
  await store[Symbol.asyncDispose]();
});

/** What a layer that the layers before it do not save is refused with; nothing of the image may be left. */
async function refused(...layers: HandMadeLayer[]): Promise<string> {
  const error = await refusal(loadLayers(store, layers));
  expect(error.code).toBe("image_invalid");
  expect(await store.stored()).toEqual([]);
  return error.message;
}

describe.skipIf(!isRoot())("hostile layers", () => {
  const fine: HandMadeLayer = [dir("etc/"), { name: "etc/hostname", content: "x" }];

  test.each<[what: string, layers: HandMadeLayer[], message: string]>([
    ["../../etc/x", [[{ name: "../../etc/x", content: "x" }]], '".." in it'],
    ["../../etc/x in a later layer", [fine, [{ name: "a/../../../etc/x", content: "x" }]], "layer 2 of 2"],
    ["an absolute name", [[{ name: "/etc/mayfly-test", content: "x" }]], "absolute"],
    ["a link, then a file through it", [[link("l", "/etc"), { name: "l/mayfly-test", content: "x" }]], "is a symlink"],
    [
      "a link, then a whiteout through it, a layer later",
      [[link("l", "/etc")], [{ name: "l/.wh.passwd" }]],
      "is a symlink",
    ],
    ["a link, then a directory over it", [[link("l", "/etc"), dir("l/")]], "already"],
    ["a hard link out of the tree", [[hard("h", "../../etc/passwd")]], '".." in it'],
    ["an absolute hard link", [[hard("h", "/etc/passwd")]], "absolute"],
    ["a hard link to what is not there", [fine, [hard("h", "etc/passwd")]], "not there before it"],
    ["a hard link through a link", [[link("l", "/etc"), hard("h", "l/passwd")]], "not there before it"],
    [
      "a hard link through a link of a layer below",
      [[link("l", "/etc")], [hard("h", "l/passwd")]],
      "not there before it",
    ],
    ["a whiteout of the parent", [[{ name: "a/.wh..." }]], "removes nothing"],
    ["a whiteout of everything", [[{ name: ".wh." }]], "removes nothing"],
    ["a name below a whiteout", [[{ name: ".wh.x/etc/passwd" }]], "below a name that begins with .wh."],
    ["a file below a device", [[{ name: "sda", type: "4", major: 8 }, { name: "sda/x" }]], "is a block"],
    ["a root that is a link", [[link("./", "/")]], "root is not a directory"],
    ["a NUL in a name", [[{ name: "x", pax: { path: "a\0b" } }]], "NUL"],
    ["a name of 255 bytes", [[{ name: "x", pax: { path: "x".repeat(255) } }]], "longer than 254"],
    ["a path without end", [[{ name: "x", pax: { path: "a/".repeat(2000) } }]], "limit"],
    ["a file of a petabyte in its header", [[{ name: "x", size: 2 ** 30 * 8 - 1, content: "" }]], ""],
    [
      "holes of a terabyte",
      [
        [
          {
            name: "x",
            pax: {
              "GNU.sparse.major": "1",
              "GNU.sparse.minor": "0",
              "GNU.sparse.name": "x",
              "GNU.sparse.realsize": "1099511627776",
            },
            content: "0\n",
          },
        ],
      ],
      "limit",
    ],
    [
      "an attribute that nothing can have",
      [[{ name: "p", type: "6", pax: { "SCHILY.xattr.user.x": "y" } }]],
      "attribute cannot be kept",
    ],
    ["a type that nobody knows", [[{ name: "x", type: "Z" }]], "type"],
    ["no tarball", [new TextEncoder().encode("nothing of the kind".repeat(100))], "checksum"],
    [
      "a tarball that is cut off",
      [fine, new Uint8Array(fine instanceof Uint8Array ? fine : Buffer.concat([Buffer.alloc(300, 1)]))],
      "",
    ],
  ])("%s", async (_what, layers, message) => {
    expect(await refused(...layers)).toContain(message);
    for (const path of ["/etc/x", "/etc/mayfly-test", `${store.stateDir}/etc/x`])
      expect(await exists(path)).toBe(false);
    expect(await exists("/etc/passwd")).toBe(true);
  });

  test("looping links are kept as they are and hurt nobody", async () => {
    const loops = [link("a", "b"), link("b", "a"), link("self", "self"), link("etc", "etc/x"), link("up", "..")];
    const image = await loadLayers(store, [loops]);
    expect(store.images.resolve(image.id).passwd).toBe("");
  });

  test("bombs: gzip, zstd, and more than the limit", async () => {
    await runTool(["sh", "-c", "mkdir zeroes && truncate -s 200M zeroes/z && tar -C zeroes -cf zeroes.tar z"], {
      cwd: store.work,
    });
    for (const [command, suffix] of [
      ["gzip -1", "gz"],
      ["zstd -q", "zst"],
    ]) {
      await runTool(["sh", "-c", `${command} -k zeroes.tar -c > bomb.${suffix}`], { cwd: store.work });
      const bomb = { stateDir: store.stateDir, tarballPath: `${store.work}/bomb.${suffix}`, limitBytes: 2 ** 26 };
      expect((await refusal(importRootfs(bomb))).message).toContain("the limit is 67108864");
    }
    const many = Array.from({ length: 50 }, (_, number) => ({ name: `${number}` }));
    await writeText(`${store.work}/many.tar`, buildTar(many));
    const unpacking = unpackLayers(`${store.work}/w`, [{ path: `${store.work}/many.tar`, label: "the layer" }], {
      ...{ limitBytes: 2 ** 26, limitEntries: 49 },
    });
    expect((await refusal(unpacking)).message).toContain('entry "49": it is beyond the limit of 49 entries');
  }, 30_000);

  test("digests that are wrong: of a blob, of a configuration, of what a layer unpacks to", async () => {
    const layout = `${store.work}/layout`;
    const loading = () => store.operations.load({ path: layout }, store.options());
    await writeLayout(layout, [
      { layers: [fine], document: { rootfs: { type: "layers", diff_ids: [`sha256:${"0".repeat(64)}`] } } },
    ]);
    expect((await refusal(loading())).message).toContain("uncompressed digest");
    await writeLayout(layout, [{ layers: [fine], document: { rootfs: { type: "layers", diff_ids: [] } } }]);
    expect((await refusal(loading())).message).toContain("its manifest has 1 layers, its configuration 0");
    await runTool(["rm", "-r", layout]);
    await writeLayout(layout, [{ layers: [fine] }]);
    const blobs = (await runTool(["sh", "-c", "ls -S blobs/sha256"], { cwd: layout })).stdout.trim().split("\n");
    for (const blob of blobs) {
      await runTool(["cp", `blobs/sha256/${blob}`, "kept"], { cwd: layout });
      await runTool(["sh", "-c", `printf X | dd of=blobs/sha256/${blob} bs=1 seek=20 conv=notrunc 2>/dev/null`], {
        cwd: layout,
      });
      const error = await refusal(loading());
      expect([error.code, /digest|checksum/.test(error.message)]).toEqual(["image_invalid", true]);
      await runTool(["mv", "kept", `blobs/sha256/${blob}`], { cwd: layout });
    }
    expect(await store.stored()).toEqual([]);
    expect(await loading()).toHaveLength(1);
  });

  test("an archive whose blobs are links out of it", async () => {
    const layout = `${store.work}/layout`;
    await writeText(`${store.work}/secret`, "root:secret");
    await writeLayout(layout, [{ layers: [fine] }]);
    await runTool(
      ["sh", "-c", `for f in blobs/sha256/*; do ln -sf ${store.work}/secret $f; done; ln -sf /etc/passwd index.json`],
      { cwd: layout },
    );
    const archive = await packed(layout, `${store.work}/archive.tar`);
    const error = await refusal(store.operations.load({ path: archive }, store.options()));
    expect(error.code).toBe("image_invalid");
    expect(error.message).not.toContain("secret");
    expect(error.message).not.toContain("root:");
  });
});
