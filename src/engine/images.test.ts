/** Names of images: given, moved, taken away; and what goes from the store with them. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { openImages, refusal, type TestImages } from "../../tests/support/image-store.ts";
import { type HandMadeImage, writeLayout } from "../../tests/support/oci-layout.ts";
import { MayflyError } from "../contract/errors.ts";
import { buildTar } from "../image/tar-builder.ts";
import { isRoot, writeText } from "../sys/paths.ts";

let store: TestImages;

beforeEach(async () => {
  store = await openImages();
});

afterEach(async () => {
  await store[Symbol.asyncDispose]();
});

let layouts = 0;

async function load(name: string | undefined, image: Partial<HandMadeImage> = {}) {
  const path = `${store.work}/layout-${++layouts}`;
  const whole = { layers: [[{ name: "base" }]], config: { Cmd: [name ?? "none"] }, ...image };
  await writeLayout(path, [name === undefined ? whole : { ...whole, name }]);
  const [loaded] = await store.operations.load({ path }, store.options());
  if (loaded === undefined) throw new Error("nothing was loaded");
  return loaded;
}

const names = () =>
  store.images
    .list()
    .map(({ name }) => name)
    .sort();
const code = (action: () => unknown) => {
  try {
    action();
  } catch (error) {
    return error instanceof MayflyError ? error.code : error;
  }
  return undefined;
};

describe.skipIf(!isRoot())("images", () => {
  test("are found as docker finds them", async () => {
    const app = await load("team/app:1");
    const found = (ref: string) => store.images.get(ref).id;
    const refs = ["team/app:1", "docker.io/team/app:1", app.id, app.id.slice(4), app.id.slice(14, 22)];
    const ids = [
      app.configDigest ?? "",
      (app.configDigest ?? "").slice(7),
      (app.configDigest ?? "").slice(0, 15),
      (app.configDigest ?? "").slice(7, 15),
    ];
    for (const ref of [...refs, ...ids]) expect([ref, found(ref)]).toEqual([ref, app.id]);
    expect(found(`team/app@${app.manifestDigest}`)).toBe(app.id);
    for (const ref of [
      "team/app",
      "app:1",
      "team/app:2",
      "<none>",
      "",
      "sha256:",
      `team/app@sha256:${"0".repeat(64)}`,
    ]) {
      expect([ref, code(() => found(ref))]).toEqual([ref, "image_not_found"]);
    }
    await load("team/app:2");
    expect(code(() => found("img_"))).toBe("id_ambiguous");
    try {
      found("debian");
    } catch (error) {
      expect((error as MayflyError).details.remedy).toBe("mayfly pull debian");
    }
  });

  test("what a VM needs is there without reading, its configuration whole besides", async () => {
    const raw = { Env: ["A=b"], Healthcheck: { Test: ["CMD", "x"] }, OnBuild: ["x"] };
    const layer = [
      { name: "etc/passwd", content: "p" },
      { name: "etc/group", content: "g" },
    ];
    const app = await load("app:1", { layers: [layer], config: raw });
    const resolved = store.images.resolve("app:1");
    expect(resolved).toMatchObject({ passwd: "p", group: "g", image: app, rootfs: { fstype: "erofs" } });
    expect(resolved.image.config).toEqual({ env: ["A=b"], healthCheck: { test: ["CMD", "x"] } });
    expect((await store.images.details("app:1")).document).toMatchObject({ config: raw });
  });

  test("one more name is one more entry of the same image; the last one that goes takes the image with it", async () => {
    const app = await load("app:1");
    const other = await store.images.tag("app:1", "localhost:5000/app");
    expect(other).toMatchObject({
      name: "localhost:5000/app:latest",
      configDigest: app.configDigest,
      repoDigest: null,
    });
    expect(other.id).not.toBe(app.id);
    expect(await store.images.tag("app:1", "localhost:5000/app")).toMatchObject({ id: other.id });
    expect(code(() => store.images.get(app.configDigest ?? ""))).toBeUndefined();
    await store.reopen();
    expect(names()).toEqual(["docker.io/library/app:1", "localhost:5000/app:latest"]);
    const several = await refusal(store.images.remove((app.configDigest ?? "").slice(7, 19)));
    expect([several.code, several.message.includes("app:1, localhost:5000/app:latest")]).toEqual([
      "resource_in_use",
      true,
    ]);
    expect(await store.images.remove("app:1")).toEqual(["docker.io/library/app:1"]);
    expect(await store.stored()).toHaveLength(4);
    await store.images.tag("localhost:5000/app", "third:1");
    expect(await store.images.remove((app.configDigest ?? "").slice(7, 19), true)).toHaveLength(2);
    expect(await store.stored()).toEqual([]);
    expect(store.events.map(({ type }) => type).filter((type) => type === "image.removed")).toHaveLength(3);
    expect((await refusal(store.images.tag("app:1", "x"))).code).toBe("image_not_found");
  });

  test("names that are none are refused before anything happens", async () => {
    await load("app:1");
    for (const name of ["UP", "a b", `app@sha256:${"0".repeat(64)}`, ""]) {
      expect((await refusal(store.images.tag("app:1", name))).code).toBe("invalid_argument");
    }
    expect(names()).toEqual(["docker.io/library/app:1"]);
  });

  test("a name that moves leaves the other image without one, unless it has another", async () => {
    const old = await load("app:1");
    await load("app:1", { config: { Cmd: ["new"] } });
    expect(names()).toEqual(["<none>", "docker.io/library/app:1"]);
    expect(store.images.get(old.id)).toMatchObject({ name: "<none>", configDigest: old.configDigest });
    await store.reopen();
    expect(names()).toEqual(["<none>", "docker.io/library/app:1"]);
    // It gets a name again, and is the same entry.
    expect((await store.images.tag(old.id, "old:1")).id).toBe(old.id);
    expect(names()).toEqual(["docker.io/library/app:1", "docker.io/library/old:1"]);
    await store.images.tag("old:1", "older:1");
    await store.images.tag("app:1", "old:1");
    expect(names()).toEqual(["docker.io/library/app:1", "docker.io/library/old:1", "docker.io/library/older:1"]);
  });

  test("what comes without a name has those that it has already", async () => {
    const app = await load("app:1", { config: {} });
    expect((await load(undefined, { config: {} })).id).toBe(app.id);
    expect(names()).toEqual(["docker.io/library/app:1"]);
    const bare = await load(undefined, { config: { Cmd: ["bare"] } });
    expect((await load(undefined, { config: { Cmd: ["bare"] } })).id).toBe(bare.id);
    expect((await load("bare:1", { config: { Cmd: ["bare"] } })).id).toBe(bare.id);
    expect(names()).toEqual(["docker.io/library/app:1", "docker.io/library/bare:1"]);
  });

  test("what VMs and templates use stays", async () => {
    const app = await load("app:1");
    store.images.usedBy = (image) => (image.id === app.id ? ["web"] : []);
    const busy = await refusal(store.images.remove("app:1", true));
    expect([busy.code, busy.message.includes("web runs on it")]).toEqual(["resource_in_use", true]);
    // Its name may move, but its entry stays for the VM.
    await store.images.tag("app:1", "same:1");
    await load("app:1", { config: { Cmd: ["new"] } });
    expect(store.images.get(app.id).name).toBe("<none>");
    expect(await store.images.prune(true)).toHaveLength(2);
    expect(names()).toEqual(["<none>"]);
    store.images.usedBy = () => [];
    store.images.neededBy = (digest) => (digest === app.digest ? ["template fast"] : []);
    expect((await refusal(store.images.remove(app.id))).message).toContain(": template fast needs it");
    expect(await store.images.prune(true)).toEqual([]);
    store.images.neededBy = () => [];
    expect(await store.images.prune(false)).toEqual([app.id]);
    expect(await store.stored()).toEqual([]);
  });

  test("pruning takes what has no name, or everything that nobody uses; df says how much that is", async () => {
    await load("app:1", { layers: [[{ name: "shared" }], [{ name: "old", content: "x".repeat(100_000) }]] });
    expect(await store.images.reclaimableBytes()).toBe(0);
    await load("app:1", { layers: [[{ name: "shared" }], [{ name: "new" }]] });
    await load("other:1", { layers: [[{ name: "shared" }]] });
    expect(await store.images.reclaimableBytes()).toBeGreaterThan(100_000);
    expect(await store.images.prune(false)).toHaveLength(1);
    expect(await store.images.reclaimableBytes()).toBe(0);
    expect(names()).toEqual(["docker.io/library/app:1", "docker.io/library/other:1"]);
    const kept = new Set(
      store.images
        .list()
        .flatMap(({ digest, configDigest, manifestDigest, layers }) => [
          digest,
          configDigest,
          manifestDigest,
          ...layers.map((layer) => layer.digest),
        ]),
    );
    const stored = new Set((await store.stored()).map((path) => `sha256:${path.replace(/^.*\//, "")}`));
    expect([...stored].sort()).toEqual([...kept].map(String).sort());
    expect(await store.images.prune(true)).toHaveLength(2);
    expect(await store.stored()).toEqual([]);
  });

  test("what a daemon left that was killed between storing and naming goes at the next start; names without contents too", async () => {
    const app = await load("app:1");
    await load("app:2");
    await writeText(`${store.stateDir}/images/sha256/${"0".repeat(64)}/rootfs.erofs`, "left");
    await writeText(`${store.stateDir}/images/blobs/sha256/${"1".repeat(64)}`, "left");
    await writeText(`${store.stateDir}/images/locks/${"2".repeat(64)}`, "");
    await store.reopen();
    expect(names()).toEqual(["docker.io/library/app:1", "docker.io/library/app:2"]);
    expect((await store.stored()).filter((path) => /0{64}|1{64}/.test(path))).toEqual([]);
    const { removePath } = await import("../sys/paths.ts");
    await removePath(`${store.stateDir}/images/sha256/${app.digest.slice(7)}`);
    await store.reopen();
    expect(names()).toEqual([]);
    expect(await store.stored()).toEqual([]);
  });

  test("while something is added nothing is taken away; afterwards it is", async () => {
    await load("app:1");
    const gate = Promise.withResolvers<void>();
    const adding = store.images.adding(() => gate.promise);
    await store.images.remove("app:1");
    expect(names()).toEqual([]);
    expect(await store.stored()).toHaveLength(4);
    gate.resolve();
    await adding;
    expect(await store.stored()).toEqual([]);
  });

  test("imported root file systems have names of their own, and no layers", async () => {
    await writeText(`${store.work}/rootfs.tar`, buildTar([{ name: "bin/sh", content: "x" }]));
    const image = await store.operations.import({ name: "debian", path: `${store.work}/rootfs.tar` }, store.options());
    expect(image).toMatchObject({ name: "debian", configDigest: null, layers: [], config: {} });
    expect((await store.images.details("debian")).document).toBeNull();
    await load("debian");
    expect(store.images.get("debian").id).toBe(image.id);
    expect(store.images.get("debian:latest").name).toBe("docker.io/library/debian:latest");
    expect(store.images.get(image.digest.slice(7, 19)).id).toBe(image.id);
    await writeText(`${store.work}/rootfs.tar`, buildTar([{ name: "bin/sh", content: "y" }]));
    await store.operations.import({ name: "debian", path: `${store.work}/rootfs.tar` }, store.options());
    expect(names()).toEqual(["debian", "docker.io/library/debian:latest"]);
    const tagged = await store.images.tag("debian", "localhost/rootfs:1");
    expect(tagged).toMatchObject({ name: "localhost/rootfs:1", configDigest: null });
    expect((await store.images.resolveRootfs("localhost/rootfs:1")).path).toContain(tagged.digest.slice(7));
    expect((await refusal(store.images.resolveRootfs("no/such"))).message).toContain("absolute path");
  });
});
