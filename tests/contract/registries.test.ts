/** Pulling from a real registry on the loopback address. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import type { PullImageRequest } from "../../src/contract/api.ts";
import { isRoot, removePath, temporaryDirectory, writeText } from "../../src/sys/paths.ts";
import { runTool } from "../../src/sys/tool.ts";
import { openImages, refusal, type TestImages } from "../support/image-store.ts";
import { digestOf, type HandMadeImage, writeBlob, writeImage, writeIndex, writeLayout } from "../support/oci-layout.ts";
import { missingRegistryTools, startRegistry, type TestRegistry } from "../support/registry.ts";

const INDEX = "application/vnd.oci.image.index.v1+json";
const MANIFEST = "application/vnd.oci.image.manifest.v1+json";
const base = [{ name: "base", content: "x".repeat(200_000) }];
const credentials = { username: "me", password: "se:cret" };

let work = "";
let registry: TestRegistry;
let locked: TestRegistry;
let encrypted: TestRegistry;

/** Makes a layout of one image and pushes it. */
async function push(name: string, image: HandMadeImage, to: TestRegistry = registry): Promise<string[]> {
  const layout = `${work}/${name.replaceAll(/\W/g, "-")}`;
  const digests = await writeLayout(layout, [{ ...image, name: "x" }]);
  await to.push(`oci:${layout}:x`, name);
  return digests;
}

async function pull(
  store: TestImages,
  reference: string,
  access: Partial<PullImageRequest> = {},
  signal?: AbortSignal,
) {
  return store.operations.pull({ reference, ...access }, store.options(signal));
}

const isTested = isRoot() && missingRegistryTools.length === 0;

describe.skipIf(!isTested)(`registries${isTested ? "" : ` (needs root, ${missingRegistryTools.join(", ")})`}`, () => {
  beforeAll(async () => {
    work = await temporaryDirectory("mayfly-registry");
    registry = await startRegistry({ directory: `${work}/open` });
    locked = await startRegistry({ directory: `${work}/locked`, credentials });
    encrypted = await startRegistry({ directory: `${work}/encrypted`, tls: true });
    await push("app:1", { layers: [base, [{ name: "one", content: "1" }]], config: { Cmd: ["one"] } });
    await push("app:2", {
      layers: [base, [{ name: "two", content: "2" }]],
      config: { Cmd: ["two"] },
      compression: "gzip",
    });
    await push("secret:1", { layers: [base] }, locked);
  }, 60_000);

  afterAll(async () => {
    for (const one of [registry, locked, encrypted]) await one?.[Symbol.asyncDispose]();
    await removePath(work);
  });

  test("an image is pulled, is there, and the next time nothing is fetched", async () => {
    await using store = await openImages();
    const name = `${registry.host}/app:1`;
    const { image, unchanged } = await pull(store, name);
    expect(unchanged).toBe(false);
    expect(image).toMatchObject({ name, architecture: "amd64", config: { cmd: ["one"] }, fstype: "erofs" });
    expect(image.repoDigest).toBe(image.manifestDigest);
    expect(image.layers.map(({ digest }) => digest)).toHaveLength(2);
    expect(store.steps.some((step) => /^fetching, 2 of 2 layers|^fetching, 0 of 2 layers/.test(step))).toBe(true);
    expect(store.steps).toContain(`packing 0.2 MiB`);
    const before = registry.requests().length;
    const again = await pull(store, name);
    expect(again).toEqual({ image, unchanged: true });
    const asked = registry
      .requests()
      .slice(before)
      .filter((line) => !line.endsWith("/v2/"));
    expect(asked).toEqual(["GET /v2/app/manifests/1"]);
    expect(store.events.map(({ type }) => type)).toEqual(["image.pulled"]);
    // By the digest that the registry gave it is the same, and has that name besides.
    const pinned = await pull(store, `${registry.host}/app@${image.repoDigest}`);
    expect(pinned.image.configDigest).toBe(image.configDigest);
    expect(store.images.get(`${registry.host}/app:whatever@${image.repoDigest}`).configDigest).toBe(image.configDigest);
    await store.reopen();
    expect(store.images.get(name)).toEqual(image);
  });

  test("layers that are here are not fetched again", async () => {
    await using store = await openImages();
    const one = await pull(store, `${registry.host}/app:1`);
    await push("app:3", { layers: [base, [{ name: "three", content: "3" }]] });
    const before = registry.requests().length;
    const three = await pull(store, `${registry.host}/app:3`);
    const shared = one.image.layers[0]?.digest;
    expect(three.image.layers[0]?.digest).toBe(shared ?? "");
    const blobs = registry
      .requests()
      .slice(before)
      .filter((line) => line.startsWith("GET") && line.includes("/blobs/"));
    expect(blobs.some((line) => line.includes(shared ?? "?"))).toBe(false);
    expect(blobs.some((line) => line.includes(three.image.layers[1]?.digest ?? "?"))).toBe(true);
  });

  test("a tag that moves leaves the old image without a name", async () => {
    await using store = await openImages();
    await push("moving:1", { layers: [base], config: { Cmd: ["old"] } });
    const old = await pull(store, `${registry.host}/moving:1`);
    await push("moving:1", { layers: [base], config: { Cmd: ["new"] } });
    const { image, unchanged } = await pull(store, `${registry.host}/moving:1`);
    expect(unchanged).toBe(false);
    expect(image.config.cmd).toEqual(["new"]);
    expect(image.digest).toBe(old.image.digest);
    expect(
      store.images
        .list()
        .map(({ name }) => name)
        .sort(),
    ).toEqual([`${registry.host}/moving:1`, "<none>"].sort());
    expect(store.images.get(old.image.id).name).toBe("<none>");
  });

  test("two pulls at once work once, and both have it", async () => {
    await using store = await openImages();
    const before = registry.requests().length;
    const results = await Promise.all([1, 2, 1].map((tag) => pull(store, `${registry.host}/app:${tag}`)));
    expect(results.map(({ unchanged }) => unchanged)).toEqual([false, false, true]);
    const own = results[0]?.image.layers[1]?.digest ?? "?";
    expect(
      registry
        .requests()
        .slice(before)
        .filter((line) => line.startsWith("GET") && line.includes(own)),
    ).toHaveLength(1);
    expect(results[0]?.image.digest).toBe(results[2]?.image.digest ?? "");
    expect(store.images.list()).toHaveLength(2);
    expect(store.steps.filter((step) => step.startsWith("packing"))).toHaveLength(2);
    const contents = (await store.stored()).filter((path) => path.startsWith("sha256/"));
    expect(contents).toHaveLength(2);
  });

  test("of an index linux/amd64 is taken, another platform is refused with what there is", async () => {
    await using store = await openImages();
    const layout = `${work}/index`;
    mkdirSync(`${layout}/blobs/sha256`, { recursive: true });
    const arm: HandMadeImage = { layers: [base], compression: "gzip", document: { architecture: "arm64" } };
    const entries = [
      { ...(await writeImage(layout, arm)), platform: { os: "linux", architecture: "arm64", variant: "v8" } },
      {
        ...(await writeImage(layout, { layers: [base], compression: "gzip", config: { Cmd: ["amd64"] } })),
        platform: { os: "linux", architecture: "amd64" },
      },
    ];
    const both = writeBlob(layout, JSON.stringify({ schemaVersion: 2, mediaType: INDEX, manifests: entries }));
    writeIndex(layout, [{ mediaType: INDEX, ...both }]);
    await runTool([
      "skopeo",
      "--insecure-policy",
      "copy",
      "--all",
      "--quiet",
      "--dest-tls-verify=false",
      `oci:${layout}`,
      `docker://${registry.host}/many:1`,
    ]);
    const { image } = await pull(store, `${registry.host}/many:1`);
    expect(image.config.cmd).toEqual(["amd64"]);
    expect(image.manifestDigest).toBe(entries[1]?.digest ?? "");
    expect(image.repoDigest).not.toBe(image.manifestDigest);
    expect((await pull(store, `${registry.host}/many:1`)).unchanged).toBe(true);
    for (const digest of [image.repoDigest, image.manifestDigest]) {
      expect(store.images.get(`${registry.host}/many@${digest}`).id).toBe(image.id);
    }
    const index = JSON.stringify({ schemaVersion: 2, mediaType: INDEX, manifests: [entries[0]] });
    expect(await registry.put("/v2/many/manifests/arm", index, INDEX)).toBe(201);
    const error = await refusal(pull(store, `${registry.host}/many:arm`));
    expect([error.code, error.message]).toEqual([
      "image_invalid",
      `Cannot use ${registry.host}/many:arm: it is not for linux/amd64, but for linux/arm64/v8`,
    ]);
    expect((await refusal(pull(store, `${registry.host}/many@${entries[0]?.digest}`))).message).toContain(
      "linux/arm64",
    );
  });

  test("health checks of docker's own format stay", async () => {
    await using store = await openImages();
    const config = { Healthcheck: { Test: ["CMD", "true"], Interval: 1e9 }, Shell: ["/bin/sh", "-c"] };
    const type = "application/vnd.docker";
    const layer = { digest: "", size: 0 };
    const manifest = {
      mediaType: `${type}.distribution.manifest.v2+json`,
      ...{ config: layer, layers: [layer] },
    };
    const layout = `${work}/docker`;
    const [digest = ""] = await writeLayout(layout, [{ layers: [base], config, name: "x", compression: "gzip" }]);
    const own = JSON.parse(await Bun.file(`${layout}/blobs/sha256/${digest.slice(7)}`).text());
    manifest.config = { ...own.config, mediaType: `${type}.container.image.v1+json` };
    manifest.layers = [{ ...own.layers[0], mediaType: `${type}.image.rootfs.diff.tar.gzip` }];
    await registry.push(`oci:${layout}:x`, "docker:oci");
    expect(
      await registry.put(
        "/v2/docker/manifests/1",
        JSON.stringify({ schemaVersion: 2, ...manifest }),
        manifest.mediaType,
      ),
    ).toBe(201);
    const { image } = await pull(store, `${registry.host}/docker:1`);
    expect(image.config.healthCheck).toEqual({ test: ["CMD", "true"], intervalMs: 1000 });
    expect((await store.images.details(image.id)).document).toMatchObject({ config });
  });

  test("credentials: given, in a file, missing, wrong; they are in no argument and left nowhere", async () => {
    await using store = await openImages();
    const reference = `${locked.host}/secret:1`;
    const denied = await refusal(pull(store, reference));
    expect([denied.code, denied.details.remedy?.includes("--creds")]).toEqual(["registry_denied", true]);
    const wrong = await refusal(pull(store, reference, { credentials: { ...credentials, password: "wrong" } }));
    expect(wrong.code).toBe("registry_denied");
    expect(await store.stored()).toEqual([]);
    expect((await pull(store, reference, { credentials })).image.name).toBe(reference);
    const auth = btoa(`${credentials.username}:${credentials.password}`);
    writeFileSync(`${work}/auth.json`, JSON.stringify({ auths: { [locked.host]: { auth } } }));
    expect((await pull(store, reference, { authFile: `${work}/auth.json` })).unchanged).toBe(true);
    expect((await runTool(["grep", "-rl", auth, store.stateDir]).catch(() => ({ stdout: "" }))).stdout).toBe("");
  });

  test("TLS is verified where that is asked for, and elsewhere than here always", async () => {
    await using store = await openImages();
    await push("app:1", { layers: [base] }, encrypted);
    const reference = `${encrypted.host}/app:1`;
    const untrusted = await refusal(pull(store, reference, { tlsVerify: true }));
    expect([untrusted.code, untrusted.details.remedy?.includes("--cert-dir")]).toEqual(["registry_unreachable", true]);
    expect((await pull(store, reference, { tlsVerify: true, certDir: encrypted.certDir })).unchanged).toBe(false);
    expect((await pull(store, reference)).unchanged).toBe(true);
    const plain = await refusal(pull(store, `${registry.host}/app:1`, { tlsVerify: true }));
    expect([plain.code, plain.message.includes("HTTPS")]).toEqual(["registry_unreachable", true]);
    const elsewhere = await refusal(pull(store, "registry.invalid/app:1", { tlsVerify: false }));
    expect([elsewhere.code, elsewhere.message.includes("loopback")]).toEqual(["invalid_argument", true]);
  });

  test("what is not there, and nobody there", async () => {
    await using store = await openImages();
    for (const name of ["none:1", "app:none", `app@sha256:${"0".repeat(64)}`]) {
      expect((await refusal(pull(store, `${registry.host}/${name}`))).code).toBe("image_not_found");
    }
    expect((await refusal(pull(store, "127.0.0.1:1/app:1"))).code).toBe("registry_unreachable");
    expect((await refusal(pull(store, "registry.invalid/app:1"))).code).toBe("registry_unreachable");
    expect(() => pull(store, "No Name")).toThrow("no name of an image");
    expect(await store.stored()).toEqual([]);
  }, 30_000);

  test("mirrors are those of the host's registries.conf", async () => {
    await using store = await openImages();
    const mirror = `[[registry]]\nprefix = "mirrored.invalid"\nlocation = "mirrored.invalid"\n[[registry.mirror]]\nlocation = "${registry.host}"\ninsecure = true\n`;
    await writeText(`${work}/home/.config/containers/registries.conf`, mirror);
    const home = process.env["HOME"];
    process.env["HOME"] = `${work}/home`;
    try {
      const { image } = await pull(store, "mirrored.invalid/app:1");
      expect(image).toMatchObject({ name: "mirrored.invalid/app:1", config: { cmd: ["one"] } });
    } finally {
      process.env["HOME"] = home;
    }
  });

  test("a registry that sends something else than it says", async () => {
    await using store = await openImages();
    const layout = `${work}/lying`;
    const [digest = ""] = await writeLayout(layout, [
      { layers: [[{ name: "a", content: "a" }]], name: "x", compression: "gzip" },
    ]);
    await registry.push(`oci:${layout}:x`, "lying:1");
    // Its storage is changed behind its back.
    const { layers } = JSON.parse(await Bun.file(`${layout}/blobs/sha256/${digest.slice(7)}`).text());
    const hex = layers[0].digest.slice(7);
    const blob = `${work}/open/storage/docker/registry/v2/blobs/sha256/${hex.slice(0, 2)}/${hex}/data`;
    const bytes = new Uint8Array(await Bun.file(blob).bytes());
    bytes[0] = 0x62;
    writeFileSync(blob, bytes);
    const error = await refusal(pull(store, `${registry.host}/lying:1`));
    expect([error.code, /digest|did not match/i.test(error.message)]).toEqual(["image_invalid", true]);
    expect(await store.stored()).toEqual([]);
    // A manifest whose layers do not unpack to what its configuration says.
    const bad = { layers: [base], document: { rootfs: { type: "layers", diff_ids: [digestOf("other")] } } };
    await push("lying:2", bad);
    expect((await refusal(pull(store, `${registry.host}/lying:2`))).message).toContain("uncompressed digest");
    const huge = JSON.stringify({
      schemaVersion: 2,
      mediaType: MANIFEST,
      config: JSON.parse(await manifestOf(layout, digest)).config,
      layers: [{ ...layers[0], size: 1 }],
    });
    expect([201, 400]).toContain(await registry.put("/v2/lying/manifests/3", huge, MANIFEST));
    expect((await refusal(pull(store, `${registry.host}/lying:3`))).code).toMatch(/image_invalid|image_not_found/);
    expect(await store.stored()).toEqual([]);
  });

  test("a pull that is cancelled leaves nothing", async () => {
    await using store = await openImages();
    const abort = new AbortController();
    const running = store.operations.pull(
      { reference: `${registry.host}/app:1` },
      {
        ...store.options(abort.signal),
        onProgress: (step) => step.startsWith("fetching") && abort.abort(),
      },
    );
    expect((await refusal(running)).code).toBe("cancelled");
    expect(await store.stored()).toEqual([]);
    expect(store.images.list()).toEqual([]);
  });
});

async function manifestOf(layout: string, digest: string): Promise<string> {
  return Bun.file(`${layout}/blobs/sha256/${digest.slice(7)}`).text();
}
