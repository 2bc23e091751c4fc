import { expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sha256File } from "../../src/sys/publish.ts";
import { appPromises, judge } from "../promises.ts";
import { Samples } from "../samples.ts";
import { writeOciLayout } from "./oci-layout.ts";
import { appOptions } from "./options.ts";
import { Pages } from "./pages.ts";
import { APPS } from "./recipes.ts";

test("options of the scenario", () => {
  expect(appOptions([], false)).toEqual({
    ...{ app: "node", runs: 20, podman: true, samplesPath: undefined, enforce: false, json: false },
  });
  const words = "--app=java --runs 3 --no-podman --samples f --enforce --json";
  expect(appOptions(words.split(" "), false)).toEqual({
    ...{ app: "java", runs: 3, podman: false, samplesPath: "f", enforce: true, json: true },
  });
  expect(appOptions(["--help"], false)).toBeUndefined();
  expect(() => appOptions(["--app", "ruby"], false)).toThrow('--app is "ruby"; there are node, python, java');
  expect(() => appOptions(["node"], false)).toThrow('unexpected argument "node"');
});

test("a page has to be of its own VM", () => {
  const page = (host: string, kernel: string) =>
    `<dl><dt>host<dd id=host>${host}<dt>kernel<dd id=kernel>${kernel}</dl>`;
  const pages = new Pages();
  pages.check(page("one", "aa"), "one");
  expect(() => pages.check(page("one", "bb"), "two")).toThrow("names the host one instead of two");
  expect(() => pages.check(page("two", "aa"), "two")).toThrow("which another VM has given before");
  expect(() => pages.check("<p>no fields", "two")).toThrow("has no field host");
  pages.check(page("two", "cc"), "two");
});

test("promises are judged against podman and the base guest of the same run", () => {
  const samples = new Samples();
  const add = (subject: Parameters<Samples["add"]>[0], metric: string, value: number) => {
    for (let index = 0; index < 20; index += 1) samples.add(subject, metric, "ms", value);
  };
  add("podman", "first-http", 300);
  add("warm", "first-http", 34);
  add("warm-copy", "first-http", 79);
  add("warm-cold", "first-http", 81);
  add("base-echo", "first-output", 20);
  add("image-echo", "first-output", 35);
  const outcomes = (app: (typeof APPS)[number]) =>
    judge(samples.rows(), appPromises(app)).map(({ outcome }) => outcome);
  expect(outcomes("node")).toEqual(["met", "met", "met", "not met", "met"]);
  expect(outcomes("java")).toEqual(["met", "not met", "met", "not met", "met"]);
});

test("the document states every promise, and has a place for each service", () => {
  const document = readFileSync(join(import.meta.dir, "../../docs/PERFORMANCE.md"), "utf8");
  expect(APPS.filter((app) => !document.includes(`<!-- app ${app} -->`))).toEqual([]);
  const texts = APPS.flatMap((app) => appPromises(app)).map(({ text }) => text);
  expect(texts.filter((text) => !document.includes(text))).toEqual([]);
});

test("a layout names its blobs by their contents", async () => {
  const directory = mkdtempSync(join(tmpdir(), "mayfly-layout-"));
  try {
    writeFileSync(`${directory}/layer.tar`, "no real tarball");
    const config = { Entrypoint: ["a"], Env: ["B=c"], WorkingDir: "/", User: "d", ExposedPorts: { "80/tcp": {} } };
    await writeOciLayout(directory, [`${directory}/layer.tar`], config);
    const read = async ({ digest, size }: { digest: string; size: number }) => {
      const path = `${directory}/blobs/${digest.replace(":", "/")}`;
      expect(await sha256File(path)).toBe(digest.slice("sha256:".length));
      expect(readFileSync(path)).toHaveLength(size);
      return readFileSync(path, "utf8");
    };
    const index = JSON.parse(readFileSync(`${directory}/index.json`, "utf8"));
    expect(index.manifests[0].annotations["org.opencontainers.image.ref.name"]).toBe("latest");
    const manifest = JSON.parse(await read(index.manifests[0]));
    expect(await read(manifest.layers[0])).toBe("no real tarball");
    const written = JSON.parse(await read(manifest.config));
    expect(written).toMatchObject({ os: "linux", config, rootfs: { diff_ids: [manifest.layers[0].digest] } });
  } finally {
    rmSync(directory, { recursive: true });
  }
});
