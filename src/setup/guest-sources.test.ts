import { describe, expect, test } from "bun:test";
import { filesBelow, removePath, temporaryDirectory, writeText } from "../sys/paths.ts";
import { sourcesId } from "./guest-programs.ts";
import { embeddedSources, guestSources } from "./guest-sources.ts";
import { collectModules, dependencies, parseModuleList } from "./modules.ts";
import { isRecentQemu } from "./qemu-binary.ts";
import { libraryPackages } from "./unpack.ts";
import { compareVersions } from "./workspace.ts";

test("an executable carries every source as it is", async () => {
  expect(await embeddedSources()).toEqual(await guestSources());
});

test("every header that a source includes is among the sources", async () => {
  for (const sources of Object.values(await guestSources())) {
    expect(Object.keys(sources)).toContain("Makefile");
    for (const included of Object.values(sources)
      .join("\n")
      .matchAll(/^#include "([^"]+)"/gm)) {
      expect(Object.keys(sources)).toContain(included[1] ?? "");
    }
  }
});

test("the id of sources changes with any name or byte", () => {
  const ids = [{ a: "xy" }, { a: "x", b: "y" }, { ax: "y" }, { a: "xz" }, {}].map((sources) => sourcesId(sources));
  expect(new Set(ids).size).toBe(ids.length);
  expect(sourcesId({ a: "1", b: "2" })).toBe(sourcesId({ b: "2", a: "1" }));
});

describe("modules", () => {
  test("the guest's list names what it cannot do without", async () => {
    const { agent } = await guestSources();
    const paths = parseModuleList(agent["modules.list"] ?? "")
      .filter(({ isOptional }) => !isOptional)
      .map(({ path }) => path);
    for (const name of ["virtio_mmio", "virtio_console", "virtio_blk", "erofs", "overlay"]) {
      expect(paths.some((path) => path.endsWith(`/${name}.ko`))).toBe(true);
    }
  });

  test("each is loaded after what it depends on, once; what is built in is not; optional ones may be missing", async () => {
    const work = await temporaryDirectory("mayfly-modules");
    const module = (depends: string) => `\x7fELF...\0license=GPL\0depends=${depends}\0name=x\0`;
    try {
      await writeText(`${work}/tree/kernel/fs/top.ko`, module("middle,base-one"));
      await writeText(`${work}/tree/kernel/fs/middle.ko`, module("base_one,inside"));
      await writeText(`${work}/tree/kernel/lib/base-one.ko`, module(""));
      await writeText(`${work}/tree/modules.builtin`, "kernel/lib/inside.ko\n");
      const list = parseModuleList("# comment\nfs/top.ko\n?net/none.ko\nlib/inside.ko # built in\nlib/base_one.ko\n");
      expect(await collectModules(`${work}/tree`, list, `${work}/out`)).toEqual(["base_one.ko", "middle.ko", "top.ko"]);
      expect(await filesBelow(`${work}/out`)).toEqual(["base_one.ko", "middle.ko", "top.ko"]);
      const missing = collectModules(`${work}/tree`, parseModuleList("fs/none.ko\nfs/neither.ko"), `${work}/out`);
      expect(missing).rejects.toThrow("none, neither");
    } finally {
      await removePath(work);
    }
  });

  test("dependencies are those of the section, not of any text", () => {
    expect(dependencies(Buffer.from("depends=not\0depends=a,b\0"))).toEqual(["a", "b"]);
    expect(dependencies(Buffer.from("no section"))).toEqual([]);
  });
});

test("versions: 8.2 is the least, numbers count as numbers", () => {
  expect(["1:7.2+dfsg-7", "8.1.9", "8.2", "1:10.0.2+ds-2~bpo12+1", "8.2.0"].map(isRecentQemu)).toEqual([
    false,
    false,
    true,
    true,
    true,
  ]);
  expect(["6.1.0-9-cloud", "6.12.1-cloud", "6.1.0-10-cloud"].sort(compareVersions)).toEqual([
    "6.1.0-9-cloud",
    "6.1.0-10-cloud",
    "6.12.1-cloud",
  ]);
});

test("library packages of a Depends field", () => {
  expect(libraryPackages("libc6 (>= 2.34), liba1 | libb1, qemu-data (= 1), seabios, libfdt1:amd64")).toEqual([
    "libc6",
    "liba1",
    "libfdt1",
  ]);
});
