import { describe, expect, test } from "bun:test";
import { MayflyError } from "../contract/errors.ts";
import { LayerTree } from "./layer-tree.ts";
import { type BuiltEntry, buildTar } from "./tar-builder.ts";
import { TarReader } from "./tar-reader.ts";
import { refusalOf } from "./tar-rules.ts";

const ROOM = { contentBytes: 2 ** 40, entries: 1000, nameBytes: 100_000 };

/** What the last of the layers has to remove and to keep. */
function changes(...layers: BuiltEntry[][]) {
  const tree = new LayerTree(ROOM, refusalOf("the image"));
  let last = { removals: [] as string[], keptDirectories: [] as string[] };
  layers.forEach((entries, index) => {
    tree.beginLayer(refusalOf(`layer ${index + 1}`));
    new TarReader((entry) => tree.add(entry)).push(buildTar(entries));
    last = tree.endLayer();
  });
  return { removals: last.removals.sort(), keptDirectories: last.keptDirectories.sort() };
}

function refusal(action: () => unknown): MayflyError {
  try {
    action();
  } catch (error) {
    if (error instanceof MayflyError) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}

const check = (...entries: BuiltEntry[]) => changes(entries);

describe("rules", () => {
  test.each<[string, BuiltEntry[], string]>([
    ["..", [{ name: "a/../../etc/passwd" }], '".."'],
    ["an absolute name", [{ name: "/etc/passwd" }], "absolute"],
    ["a file through a symlink", [{ name: "l", type: "2", link: "/etc" }, { name: "l/passwd" }], "symlink"],
    [
      "a directory over a symlink",
      [
        { name: "l", type: "2", link: "/etc" },
        { name: "l/", type: "5" },
      ],
      "already",
    ],
    [
      "a symlink over a directory that only a file named",
      [{ name: "d/f" }, { name: "d", type: "2", link: "/" }],
      "already",
    ],
    ["a file through a device", [{ name: "sda", type: "4", major: 8 }, { name: "sda/f" }], "block"],
    [
      "a file over a device",
      [
        { name: "sda", type: "4", major: 8 },
        { name: "sda", content: "x" },
      ],
      "already",
    ],
    ["a hard link out", [{ name: "h", type: "1", link: "../../etc/passwd" }], '".."'],
    ["an absolute hard link", [{ name: "h", type: "1", link: "/etc/passwd" }], "absolute"],
    ["a hard link to what is not there", [{ name: "h", type: "1", link: "etc/passwd" }], "not there before it"],
    [
      "a hard link through a symlink",
      [
        { name: "l", type: "2", link: "/etc" },
        { name: "h", type: "1", link: "l/passwd" },
      ],
      "not there before it",
    ],
    [
      "a hard link to a directory",
      [
        { name: "d", type: "5" },
        { name: "h", type: "1", link: "d" },
      ],
      "directory",
    ],
    ["a name by a pax header", [{ name: "ok", pax: { path: "../x" } }], '".."'],
    ["a root that is a link", [{ name: "./", type: "2", link: "/" }], "directory"],
    ["an endless name", [{ name: "x", pax: { path: "a/".repeat(2000) } }], "limit"],
    ["a part that is too long", [{ name: "x", pax: { path: "a".repeat(256) } }], "longer"],
  ])("%s is refused and named", (_what, entries, message) => {
    const error = refusal(() => check(...entries));
    expect(error.code).toBe("image_invalid");
    expect(error.message).toContain(message);
    expect(String(error.details["entry"]).length).toBeGreaterThan(0);
  });

  test("what a root file system has is taken", () => {
    expect(() =>
      check(
        { name: "./", type: "5" },
        { name: "./bin", type: "2", link: "usr/bin" },
        { name: "./usr/bin/sh", content: "x" },
        { name: "./usr/bin/dash", type: "1", link: "./usr/bin/sh" },
        { name: "./dev/null", type: "3", major: 1, minor: 3 },
        { name: "./etc/mtab", type: "2", link: "../../proc/self/mounts" },
        { name: "./usr/bin/sh", content: "newer" },
      ),
    ).not.toThrow();
  });

  test("size, number and length of names have limits", () => {
    const adder = (limits: { contentBytes: number; entries: number; nameBytes: number }) => {
      const tree = new LayerTree(limits, refusalOf("the image"));
      tree.beginLayer(refusalOf("layer 1"));
      return (name: string, sizeBytes = 0) => tree.add({ name, type: "file", link: "", sizeBytes });
    };
    const sized = adder({ ...ROOM, contentBytes: 100 });
    sized("a", 60);
    expect(refusal(() => sized("b", 60)).message).toContain("120 bytes");
    const numbered = adder({ ...ROOM, entries: 2 });
    numbered("a");
    numbered("b");
    expect(refusal(() => numbered("c")).message).toContain("2 entries");
    expect(refusal(() => adder({ ...ROOM, entries: 4 })("1/2/3/4/5/6")).message).toContain("4 entries");
    expect(refusal(() => adder({ ...ROOM, nameBytes: 60 })("x".repeat(61))).message).toContain("60 bytes");
  });
});

const dir = (name: string): BuiltEntry => ({ name, type: "5" });
const link = (name: string, target: string): BuiltEntry => ({ name, type: "2", link: target });
const nothing = { removals: [], keptDirectories: [] };

describe("layers", () => {
  test("files are added and replaced without anything being removed first", () => {
    expect(changes([dir("d/"), { name: "d/f" }], [dir("d/"), { name: "d/f" }, { name: "d/g" }])).toEqual(nothing);
  });

  test("a directory in which something changes keeps its attributes unless the layer has an entry for it", () => {
    const below = [dir("./"), dir("d/"), dir("d/e/"), { name: "d/e/f" }];
    expect(changes(below, [{ name: "d/e/f" }]).keptDirectories).toEqual(["d/e"]);
    expect(changes(below, [{ name: "d/e/.wh.f" }])).toEqual({ removals: ["d/e/f"], keptDirectories: ["d/e"] });
    expect(changes(below, [{ name: "top" }]).keptDirectories).toEqual([""]);
    expect(changes(below, [dir("d/e/"), { name: "d/e/f" }])).toEqual(nothing);
    expect(changes(below, [{ name: "d/e/.wh.f" }, { name: "d/.wh.e" }])).toEqual({
      removals: ["d/e", "d/e/f"],
      keptDirectories: ["d"],
    });
  });

  test("whiteouts remove what the layers below have, and nothing of their own layer, in any order", () => {
    const below = [dir("d/"), { name: "d/a" }, { name: "d/b" }, dir("d/s/"), { name: "d/s/x" }, { name: "e" }];
    expect(changes(below, [{ name: ".wh.e" }]).removals).toEqual(["e"]);
    expect(changes(below, [{ name: ".wh.nobody" }, { name: "no/where/.wh.x" }])).toEqual(nothing);
    const opaque = { name: "d/.wh..wh..opq" };
    const own = [{ name: "d/a" }, { name: "d/s/y" }];
    const gone = ["d/b", "d/s/x"];
    expect(changes(below, [dir("d/"), ...own, opaque]).removals).toEqual(gone);
    expect(changes(below, [dir("d/"), opaque, ...own]).removals).toEqual(["d/a", "d/b", "d/s"]);
    expect(changes(below, [dir("d/"), ...own, { name: ".wh.d" }]).removals).toEqual(gone);
    expect(changes(below, [{ name: ".wh.d" }, dir("d/"), ...own]).removals).toEqual(["d"]);
    expect(changes(below, [{ name: "d/.wh..wh.plnk" }])).toEqual(nothing);
  });

  test("what changes its type gives way first", () => {
    const below = [dir("d/"), { name: "d/f" }, { name: "f" }, link("l", "d")];
    expect(changes(below, [{ name: "d" }]).removals).toEqual(["d"]);
    expect(changes(below, [dir("f/")]).removals).toEqual(["f"]);
    expect(changes(below, [dir("l/")]).removals).toEqual(["l"]);
    expect(changes(below, [link("f", "d")]).removals).toEqual([]);
  });

  test("a name below a link of a layer below takes its place, as podman does; nothing goes through it", () => {
    const below = [dir("usr/"), dir("usr/lib/"), link("lib", "usr/lib")];
    expect(changes(below, [{ name: "lib/x" }]).removals).toEqual(["lib"]);
    expect(refusal(() => changes(below, [{ name: "lib/.wh.x" }])).message).toContain("is a symlink");
    expect(refusal(() => changes(below, [link("m", "usr"), { name: "m/x" }])).message).toContain("is a symlink");
  });

  test("hard links reach the layers below, but not what is gone", () => {
    const below = [{ name: "f" }, dir("d/")];
    const hard = { name: "h", type: "1", link: "f" };
    expect(changes(below, [hard])).toEqual(nothing);
    expect(refusal(() => changes(below, [{ name: ".wh.f" }, hard])).message).toContain("not there before it");
    expect(refusal(() => changes(below, [{ ...hard, link: "d" }])).message).toContain("directory");
  });

  test.each([".wh.", ".wh..", ".wh...", "d/.wh...", ".wh.x/y", ".wh..wh..opq/y"])("%s is refused", (name) => {
    const error = refusal(() => changes([dir("d/")], [{ name }]));
    expect(error.code).toBe("image_invalid");
    expect(error.message).toContain("layer 2");
  });
});
