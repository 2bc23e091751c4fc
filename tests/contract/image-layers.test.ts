/** Layers as VMs will see them, beside what umoci and podman make of the same image. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { isRoot, readOptional } from "../../src/sys/paths.ts";
import { exists } from "../../src/sys/publish.ts";
import { findTool, runTool } from "../../src/sys/tool.ts";
import { loadLayers, openImages, refusal, type TestImages } from "../support/image-store.ts";
import { dir, type HandMadeLayer, hard, link, writeLayout } from "../support/oci-layout.ts";

const canMount = (await readOptional("/proc/filesystems"))?.includes("\terofs\n") ?? false;
const missing = ["umoci", "getfattr"].filter((tool) => findTool(tool) === undefined);

let store: TestImages;

beforeEach(async () => {
  store = await openImages();
});

afterEach(async () => {
  await store[Symbol.asyncDispose]();
});

const load = (layers: readonly HandMadeLayer[], compression?: "gzip" | "zstd") =>
  loadLayers(store, layers, compression);

/** Everything of a tree: names, types, targets, modes, owners, links, devices, times, contents, extended attributes. */
async function described(directory: string): Promise<string[]> {
  const script = `cd "$1"
    find . -mindepth 1 -print0 | sort -z | xargs -0r stat --format '%N %F %a %u %g %h %t %T %Y'
    find . -type f -print0 | sort -z | xargs -0r sha256sum
    find . -mindepth 1 -print0 | sort -z | xargs -0r -n 1 getfattr -h -d -m - -e hex`;
  return (await runTool(["sh", "-c", script, "describe", directory])).stdout.split("\n");
}

/** Each name below a directory with its type, and a link's target. */
async function names(directory: string): Promise<string[]> {
  const { stdout } = await runTool([
    "sh",
    "-c",
    `cd "$1" && find . -mindepth 1 -printf '%P %y %l\\n' | sort`,
    "names",
    directory,
  ]);
  return stdout
    .split("\n")
    .map((line) => line.trimEnd())
    .filter((line) => line !== "");
}

/** The names that podman shows of the image `x:1` of a layout, by a storage of its own. */
async function namesInPodman(layout: string): Promise<string[]> {
  const script = `set -e
    podman="podman --root $1/podman/root --runroot $1/podman/run --tmpdir $1/podman/tmp --events-backend none"
    podman="$podman --storage-driver overlay"
    skopeo --insecure-policy copy --quiet "oci:$2:x:1" \\
      "containers-storage:[overlay@$1/podman/root+$1/podman/run]localhost/x:1"
    cd "$($podman image mount localhost/x:1)" &&
      find . -mindepth 1 -printf '%P %y %l\\n' | sort`;
  const command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "podman", store.work, layout];
  const { stdout } = await runTool(command);
  return stdout
    .split("\n")
    .map((line) => line.trimEnd())
    .filter((line) => line !== "");
}

describe.skipIf(!isRoot() || !canMount)("layers", () => {
  /** Adds, replaces, removes, hides; keeps every owner, mode, device, attribute and link. */
  const EVERYTHING: HandMadeLayer[] = [
    [
      ...[
        dir("./"),
        dir("bin/"),
        dir("etc/"),
        dir("data/", { mode: 0o2775, uid: 1000, gid: 4_000_000 % 2_097_151 }),
        dir("gone/"),
        dir("opaque/sub/"),
      ],
      { name: "bin/su", mode: 0o4755, content: "suid" },
      { name: "etc/hello", content: "hello", uid: 12, gid: 34, mode: 0o640 },
      ...[
        hard("data/again", "etc/hello"),
        link("data/link", "../etc/hello"),
        link("data/up", "../../../../etc/passwd"),
      ],
      { name: "data/null", type: "3", major: 1, minor: 3 },
      { name: "data/disk", type: "4", major: 8, minor: 1 },
      { name: "data/pipe", type: "6" },
      {
        name: "bin/ping",
        content: "cap",
        pax: { "SCHILY.xattr.security.capability": "\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0" },
      },
      { name: "etc/noted", content: "x", pax: { "SCHILY.xattr.user.note": "kept" } },
      ...[
        { name: "gone/a", content: "a" },
        { name: "opaque/old", content: "o" },
        { name: "opaque/sub/x", content: "x" },
      ],
      ...[
        { name: "turns", content: "file" },
        dir("becomes/"),
        { name: "becomes/in", content: "in" },
        link("was", "etc"),
      ],
      dir("tmp/", { mode: 0o1777 }),
    ],
    [
      ...[
        dir("./"),
        { name: ".wh.gone" },
        dir("opaque/"),
        { name: "opaque/.wh..wh..opq" },
        { name: "opaque/new", content: "n" },
      ],
      ...[dir("etc/"), { name: "etc/.wh.noted" }, { name: "etc/hello", content: "replaced", mode: 0o600 }],
      ...[
        dir("turns/"),
        { name: "turns/now", content: "a directory" },
        { name: "becomes", content: "a file" },
        dir("was/"),
      ],
      hard("bin/sudo", "bin/su"),
    ],
    [
      dir("./"),
      dir("data/"),
      { name: "data/.wh.pipe" },
      { name: "late", content: "late" },
      hard("later", "late"),
      dir("gone/"),
    ],
  ];

  test.skipIf(missing.length > 0).each([[undefined], ["gzip" as const], ["zstd" as const]])(
    "are applied as umoci applies them (compression: %p)",
    async (compression) => {
      const image = await load(EVERYTHING, compression);
      // umoci 0.4 knows no zstd; the layers are the same.
      await writeLayout(`${store.work}/plain`, [{ layers: EVERYTHING, name: "x" }]);
      await runTool(["umoci", "unpack", "--image", `${store.work}/plain:x`, `${store.work}/bundle`]);
      const [is, should] = [await store.mounted(image, described), await described(`${store.work}/bundle/rootfs`)];
      expect(is).toEqual(should);
      const capability = "security.capability=0x0100000200200000000000000000000000000000";
      expect(is.filter((line) => line === capability || line.includes("'./bin/sudo' regular file 4755"))).toHaveLength(
        2,
      );
    },
    20_000,
  );

  test("directories that a layer only passes through keep their time and mode; those that nobody names are root's, 0755", async () => {
    const below = [dir("d/", { mode: 0o700, uid: 5 }), dir("d/e/", { mode: 0o750 }), { name: "d/e/f", content: "f" }];
    const image = await load([
      below,
      [
        { name: "d/e/g", content: "g" },
        { name: "new/way/h", content: "h" },
      ],
      [{ name: "d/e/.wh.f" }],
    ]);
    const stats = await store.mounted(image, async (directory) => {
      const { stdout } = await runTool(["stat", "--format", "%n %a %u %Y", "d", "d/e", "d/e/g", "new", "new/way"], {
        cwd: directory,
      });
      return stdout.trim().split("\n");
    });
    expect(stats.slice(0, 3)).toEqual(["d 700 5 1000000000", "d/e 750 0 1000000000", "d/e/g 644 0 1000000000"]);
    expect(stats.slice(3).map((line) => line.replace(/ \d+$/, ""))).toEqual(["new 755 0", "new/way 755 0"]);
  });

  test("names with newlines, blanks, dashes and bytes that are no UTF-8", async () => {
    const odd = ["-rf", "a\nb", " ", "quote'\"", "\xff\xfe", "*", "x".repeat(254)];
    const layer = odd.map((name) => ({ name: "x", pax: { path: `odd/${name}` }, content: "x" }));
    const image = await load([layer, odd.slice(0, 6).map((name) => ({ name: "x", pax: { path: `odd/.wh.${name}` } }))]);
    expect(await store.mounted(image, names)).toEqual(["odd d", `odd/${"x".repeat(254)} f`]);
  });

  test("a name below a link of a layer below takes its place, as in podman; nothing is written through it", async () => {
    const outside = `${store.work}/outside`;
    const below = [
      dir("usr/lib/"),
      { name: "usr/lib/a", content: "a" },
      link("lib", "usr/lib"),
      link("out", outside),
      link("loop", "loop"),
    ];
    const image = await load([
      below,
      [
        { name: "lib/b", content: "b" },
        { name: "out/x", content: "x" },
        { name: "loop/y", content: "y" },
      ],
    ]);
    const found = await store.mounted(image, names);
    expect(found).toEqual([
      "lib d",
      "lib/b f",
      "loop d",
      "loop/y f",
      "out d",
      "out/x f",
      "usr d",
      "usr/lib d",
      "usr/lib/a f",
    ]);
    expect(await exists(outside)).toBe(false);
    if (["podman", "skopeo"].every((tool) => findTool(tool) !== undefined))
      expect(await namesInPodman(`${store.work}/layout`)).toEqual(found);
  }, 30_000);

  test("a layer without anything, an image without layers", async () => {
    const image = await load([[{ name: "a", content: "a" }], new Uint8Array(1024), new Uint8Array(0)]);
    expect(await store.mounted(image, names)).toEqual(["a f"]);
    const nothing = await load([]);
    expect(await store.mounted(nothing, names)).toEqual([]);
  });

  test("users and groups are read as the image sees them", async () => {
    const accounts = { passwd: "app:x:7:8::/:/bin/sh\n", group: "app:x:8:\n" };
    const direct = [
      { name: "etc/passwd", content: accounts.passwd },
      { name: "etc/group", content: accounts.group },
    ];
    const image = await load([direct]);
    expect(store.images.resolve(image.id)).toMatchObject(accounts);
    const through = [
      ...[dir("nix/"), link("etc", "/nix/./etc"), dir("nix/etc/")],
      { name: "nix/etc/group", content: "g" },
    ];
    const linked = await load([
      [...through, link("nix/etc/passwd", "../../../../../../etc/../p"), { name: "nix/p", content: "p" }],
    ]);
    expect(store.images.resolve(linked.id)).toMatchObject({ passwd: "p", group: "g" });
    const outside = await load([[link("etc/passwd", "/etc/passwd"), link("etc/group", "/proc/self/environ")]]);
    expect(store.images.resolve(outside.id)).toMatchObject({ passwd: "", group: "" });
    await store.reopen();
    expect(store.images.resolve(outside.id)).toMatchObject({ passwd: "", group: "" });
    const error = await refusal(load([[{ name: "etc/passwd", content: "x".repeat(2 ** 20 + 1) }]]));
    expect(error.message).toContain("/etc/passwd");
  });
});
