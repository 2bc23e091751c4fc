/** Archives and layouts, as their tools write them and as nobody should. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { symlinkSync, writeFileSync } from "node:fs";
import { openImages, refusal, type TestImages } from "../../tests/support/image-store.ts";
import {
  dockerArchive,
  packed,
  tarballOf,
  writeBlob,
  writeImage,
  writeIndex,
  writeLayout,
} from "../../tests/support/oci-layout.ts";
import type { Image } from "../contract/api.ts";
import { isRoot, readBytes, writeText } from "../sys/paths.ts";
import { findTool, runTool } from "../sys/tool.ts";
import { type BuiltEntry, buildTar } from "./tar-builder.ts";

const base = [{ name: "base", content: "base" }];
const one = { layers: [base, [{ name: "one", content: "1" }]], config: { Cmd: ["one"] } };
const two = { layers: [base, [{ name: "two", content: "2" }]], config: { Cmd: ["two"] } };

let store: TestImages;
let archive = "";

beforeEach(async () => {
  store = await openImages();
  archive = `${store.work}/archive`;
});

afterEach(async () => {
  await store[Symbol.asyncDispose]();
});

const load = (path = archive) => store.operations.load({ path }, store.options());
const shown = (images: readonly Image[]) => images.map(({ name, config }) => `${name} ${config.cmd?.join(" ")}`).sort();

async function loadEntries(entries: readonly BuiltEntry[]): Promise<Image[]> {
  await writeText(archive, buildTar(entries));
  return load();
}

describe.skipIf(!isRoot())("docker-archives", () => {
  test("several images with several names, and one without, share their layers", async () => {
    const images = await loadEntries(
      dockerArchive([
        { ...one, tags: ["app:1", "localhost:5000/app:1"] },
        { ...two, tags: ["docker.io/library/app:2"] },
        { layers: [base], config: { Cmd: ["bare"] } },
      ]),
    );
    expect(shown(images)).toEqual([
      "<none> bare",
      "docker.io/library/app:1 one",
      "docker.io/library/app:2 two",
      "localhost:5000/app:1 one",
    ]);
    expect(new Set(images.map(({ layers }) => layers[0]?.digest)).size).toBe(1);
    expect(images.every(({ manifestDigest, repoDigest }) => manifestDigest !== null && repoDigest === null)).toBe(true);
    expect(shown(await load())).toEqual(shown(images));
    expect(store.images.list()).toHaveLength(4);
  });

  test.each(["gzip", "xz", "zstd"])("compressed with %s", async (program) => {
    await writeText(archive, buildTar(dockerArchive([{ ...one, tags: ["app:1"] }])));
    await runTool(["sh", "-c", `${program} -c archive > archive.packed`], { cwd: store.work });
    expect(shown(await load(`${archive}.packed`))).toEqual(["docker.io/library/app:1 one"]);
  });

  test("layers that are links to those of other images, as docker wrote them before version 25", async () => {
    const entries = dockerArchive([{ ...one, tags: ["app:1"] }]);
    const layer = entries.find(({ name }) => name.endsWith("/layer.tar"));
    const renamed = entries.map((entry) => (entry === layer ? { ...entry, name: "real/layer.tar" } : entry));
    const linked = [...renamed, { name: layer?.name ?? "", type: "2", link: "../real/layer.tar" }];
    expect(shown(await loadEntries(linked))).toEqual(["docker.io/library/app:1 one"]);
  });

  test("an archive that is an OCI layout as well, as docker writes it now", async () => {
    await writeLayout(`${store.work}/layout`, [{ ...one, name: "1" }]);
    const tag = JSON.parse(new TextDecoder().decode(await readBytes(`${store.work}/layout/index.json`)));
    const manifest = tag.manifests[0].digest.slice(7);
    const { config, layers } = JSON.parse(
      new TextDecoder().decode(await readBytes(`${store.work}/layout/blobs/sha256/${manifest}`)),
    );
    const path = ({ digest }: { digest: string }) => `blobs/sha256/${digest.slice(7)}`;
    const list = [{ Config: path(config), RepoTags: ["team/app:1"], Layers: layers.map(path) }];
    writeFileSync(`${store.work}/layout/manifest.json`, JSON.stringify(list));
    expect(shown(await load(await packed(`${store.work}/layout`, archive)))).toEqual(["docker.io/team/app:1 one"]);
  });

  test.skipIf(findTool("skopeo") === undefined)("as skopeo writes them", async () => {
    await writeLayout(`${store.work}/layout`, [{ ...one, name: "x" }]);
    const target = `docker-archive:${archive}:docker.io/library/app:9`;
    await runTool(["skopeo", "--insecure-policy", "copy", "--quiet", `oci:${store.work}/layout:x`, target]);
    expect(shown(await load())).toEqual(["docker.io/library/app:9 one"]);
  });

  test.each<[what: string, change: (entries: BuiltEntry[]) => BuiltEntry[], message: string]>([
    ["a layer that is missing", (entries) => entries.filter(({ name }) => !name.endsWith("layer.tar")), "is missing"],
    [
      "a configuration that is missing",
      (entries) => entries.filter(({ name }) => !name.endsWith(".json") || name === "manifest.json"),
      "is missing",
    ],
    [
      "a layer that is another",
      (entries) =>
        entries.map((entry) =>
          entry.name.endsWith("layer.tar") ? { ...entry, content: tarballOf([{ name: "evil" }]) } : entry,
        ),
      "uncompressed digest",
    ],
    [
      "a layer that is a link out of it",
      (entries) =>
        entries.map((entry) =>
          entry.name.endsWith("layer.tar") ? { name: entry.name, type: "2", link: "/etc/passwd" } : entry,
        ),
      "is missing",
    ],
    [
      "paths that lead out of it",
      (entries) =>
        entries.map((entry) =>
          entry.name === "manifest.json"
            ? { ...entry, content: JSON.stringify([{ Config: "../../../../etc/passwd", Layers: [] }]) }
            : entry,
        ),
      "is missing",
    ],
    [
      "no images",
      (entries) => entries.map((entry) => (entry.name === "manifest.json" ? { ...entry, content: "[]" } : entry)),
      "names no image",
    ],
    [
      "no list",
      (entries) => entries.map((entry) => (entry.name === "manifest.json" ? { ...entry, content: '"x"' } : entry)),
      "images",
    ],
    ["nothing of the kind", () => [{ name: "x", content: "x" }], "neither a manifest.json"],
    ["names that lead out of it", (entries) => [...entries, { name: "../../x" }], '".." in it'],
  ])("%s", async (_what, change, message) => {
    const error = await refusal(loadEntries(change(dockerArchive([{ ...one, tags: ["app:1"] }]))));
    expect([error.code, error.message.includes(message) ? message : error.message]).toEqual(["image_invalid", message]);
    expect(await store.stored()).toEqual([]);
  });
});

describe.skipIf(!isRoot())("OCI layouts", () => {
  test("a directory and an archive, with several images", async () => {
    const layout = `${store.work}/layout`;
    await writeLayout(layout, [
      { ...one, name: "localhost/app:1" },
      { ...two, name: "app" },
      { layers: [base], name: "latest", config: { Cmd: ["bare"] } },
    ]);
    const names = ["<none> bare", "docker.io/library/app:latest two", "localhost/app:1 one"];
    const images = await load(layout);
    expect(shown(images)).toEqual(names);
    expect(shown(await load(await packed(layout, archive)))).toEqual(names);
    expect(store.images.list()).toHaveLength(3);
  });

  test("an index in the index, of which VMs' platform is taken", async () => {
    const layout = `${store.work}/layout`;
    await writeLayout(layout, []);
    const entries = [
      {
        ...(await writeImage(layout, { ...two, document: { architecture: "arm64" } })),
        platform: { os: "linux", architecture: "arm64" },
      },
      { ...(await writeImage(layout, one)), platform: { os: "linux", architecture: "amd64" } },
    ];
    const mediaType = "application/vnd.oci.image.index.v1+json";
    const inner = writeBlob(layout, JSON.stringify({ schemaVersion: 2, mediaType, manifests: entries }));
    writeIndex(layout, [
      { mediaType, ...inner, annotations: { "io.containerd.image.name": "docker.io/library/app:7" } },
    ]);
    expect(shown(await load(layout))).toEqual(["docker.io/library/app:7 one"]);
    let deep = inner;
    for (let depth = 0; depth < 6; depth++) deep = writeBlob(layout, JSON.stringify({ manifests: [deep] }));
    writeIndex(layout, [{ mediaType, ...deep }]);
    expect((await refusal(load(layout))).message).toContain("nested");
  });

  test("a directory made of links, as build tools make them; what changes later changes nothing", async () => {
    await writeLayout(`${store.work}/real`, [{ ...one, name: "app:1" }]);
    await runTool(["sh", "-c", "mkdir -p layout/blobs && ln -s ../../real/blobs/sha256 layout/blobs/sha256"], {
      cwd: store.work,
    });
    for (const name of ["index.json", "oci-layout"]) symlinkSync(`../real/${name}`, `${store.work}/layout/${name}`);
    const [image] = await load(`${store.work}/layout`);
    await runTool(["sh", "-c", "for f in real/blobs/sha256/*; do echo changed > $f; done"], { cwd: store.work });
    const stored = `${store.stateDir}/images/blobs/sha256/${image?.layers[0]?.digest.slice(7)}`;
    expect(await readBytes(stored)).toEqual(Buffer.from(tarballOf(base)));
  });

  test.each<[what: string, change: string, message: string]>([
    ["a blob that is missing", "rm blobs/sha256/*", "missing"],
    ["a fifo", "for f in blobs/sha256/*; do rm $f; mkfifo $f; done", "missing"],
    ["an index that is a device", "ln -sf /dev/zero index.json", "neither a manifest.json"],
    ["an index that is a secret", "ln -sf /etc/passwd index.json", "no JSON object"],
    ["an index of nothing", "echo '{\"manifests\":[]}' > index.json", "names no image"],
    ["an index that is an image", 'echo \'{"config":{},"layers":[]}\' > index.json', "config"],
  ])("%s", async (_what, change, message) => {
    await writeLayout(`${store.work}/layout`, [{ ...one, name: "app:1" }]);
    await runTool(["sh", "-c", change], { cwd: `${store.work}/layout` });
    const error = await refusal(load(`${store.work}/layout`));
    expect([error.code, error.message.includes(message) ? message : error.message]).toEqual(["image_invalid", message]);
    expect(error.message).not.toContain("root:");
    expect(await store.stored()).toEqual([]);
  });

  test("no file, a device, an archive that is sent", async () => {
    expect((await refusal(load())).code).toBe("file_not_found");
    expect((await refusal(load("/dev/null"))).code).toBe("image_invalid");
    async function* sent() {
      const bytes = buildTar(dockerArchive([{ ...one, tags: ["app:1"] }]));
      for (let at = 0; at < bytes.length; at += 1000) yield bytes.subarray(at, at + 1000);
    }
    {
      await using received = await store.operations.receive(sent());
      expect(shown(await load(received.path))).toEqual(["docker.io/library/app:1 one"]);
    }
    {
      const nothing = buildTar([{ name: "x", content: "x" }]);
      await using received = await store.operations.receive(new Blob([nothing]).stream());
      const message = (await refusal(load(received.path))).message;
      expect(message).toStartWith("Cannot load what was sent: it has neither a manifest.json");
    }
    const broken = store.operations.receive(
      (async function* () {
        yield new Uint8Array(10);
        throw new Error("gone");
      })(),
    );
    expect(broken).rejects.toThrow("gone");
    await broken.catch(() => undefined);
    expect(
      (await runTool(["sh", "-c", "ls -A images/sha256 | grep '^\\.' || true"], { cwd: store.stateDir })).stdout,
    ).toBe("");
  });
});
