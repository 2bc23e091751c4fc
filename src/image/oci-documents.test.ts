import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { MayflyError } from "../contract/errors.ts";
import { chainId } from "./content.ts";
import {
  choosePlatform,
  digestOf,
  type IndexEntry,
  makeManifest,
  parseConfig,
  parseManifest,
} from "./oci-documents.ts";

const digest = `sha256:${"a".repeat(64)}`;
const bytesOf = (document: unknown) => new TextEncoder().encode(JSON.stringify(document));
const config = (more: Record<string, unknown> = {}) =>
  bytesOf({ architecture: "amd64", os: "linux", rootfs: { type: "layers", diff_ids: [digest] }, ...more });
const manifest = (more: Record<string, unknown> = {}) =>
  bytesOf({ schemaVersion: 2, config: { digest, size: 1 }, layers: [{ digest, size: 2 }], ...more });

function refusal(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    if (error instanceof MayflyError && error.code === "image_invalid") return error.message;
    throw error;
  }
  throw new Error("nothing was refused");
}

describe("configurations", () => {
  test("everything that is honoured", () => {
    const raw = {
      ...{ User: "app:users", WorkingDir: "/srv", StopSignal: "SIGQUIT", ArgsEscaped: true, OnBuild: ["RUN x"] },
      ...{ ExposedPorts: { "80/tcp": {}, "53/udp": {} }, Volumes: { "/data": {} }, Labels: { a: "b" } },
      ...{ Env: ["PATH=/bin", "EMPTY="], Entrypoint: ["/bin/sh", "-c"], Cmd: ["exec app"] },
      Healthcheck: { Test: ["CMD-SHELL", "true"], Interval: 5e9, Timeout: 1_500_000, StartPeriod: 0, Retries: 2 },
    };
    const parsed = parseConfig(
      config({ config: raw, created: "2024-05-06T07:08:09.123456789+02:00", other: [1] }),
      "x",
    );
    expect(parsed).toMatchObject({ architecture: "amd64", builtAt: "2024-05-06T05:08:09.123Z", diffIds: [digest] });
    expect(parsed.document["other"]).toEqual([1]);
    expect(parsed.digest).toBe(digestOf(parsed.bytes));
    expect(parsed.config).toEqual({
      ...{ user: "app:users", workingDir: "/srv", stopSignal: "SIGQUIT" },
      ...{ exposedPorts: ["80/tcp", "53/udp"], volumes: ["/data"], labels: { a: "b" } },
      ...{ env: ["PATH=/bin", "EMPTY="], entrypoint: ["/bin/sh", "-c"], cmd: ["exec app"] },
      healthCheck: { test: ["CMD-SHELL", "true"], intervalMs: 5000, timeoutMs: 2, retries: 2 },
    });
  });

  test("what is not said, or null, is absent", () => {
    const empty = {
      User: "",
      Env: null,
      Cmd: [],
      Entrypoint: null,
      ExposedPorts: null,
      Labels: {},
      Healthcheck: { Test: [] },
    };
    expect(parseConfig(config({ config: empty }), "x").config).toEqual({});
    expect(parseConfig(config({ config: null, created: "never" }), "x")).toMatchObject({ config: {}, builtAt: null });
    expect(parseConfig(config({ rootfs: { type: "layers", diff_ids: null } }), "x").diffIds).toEqual([]);
  });

  test.each<[string, Uint8Array, string]>([
    ["another architecture", config({ architecture: "arm64" }), "but for linux/arm64"],
    ["another system", config({ os: "windows" }), "but for windows/amd64"],
    ["no platform", config({ os: undefined, architecture: undefined }), "but for ?/?"],
    ["a NUL", config({ config: { Env: ["A=\0"] } }), "NUL"],
    ["a number for a name", config({ config: { User: 0 } }), "config.User"],
    ["diff ids that are none", config({ rootfs: { diff_ids: ["sha256:x"] } }), "hexadecimal"],
    [
      "too many ports",
      config({ config: { ExposedPorts: Object.fromEntries(Array.from({ length: 5000 }, (_, i) => [`${i}`, {}])) } }),
      "5000 ports",
    ],
    ["no JSON", new TextEncoder().encode("{"), "no JSON object"],
    ["no UTF-8", Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d), "no JSON object"],
    ["a list", bytesOf([]), "no JSON object"],
    ["a huge one", new Uint8Array(5 << 20), "bytes"],
  ])("%s is refused", (_what, bytes, message) => {
    expect(refusal(() => parseConfig(bytes, "the image"))).toContain(message);
  });
});

describe("manifests", () => {
  test("of an image, of an index", () => {
    expect(parseManifest(manifest(), "x")).toMatchObject({ kind: "manifest", layers: [{ digest, size: 2 }] });
    expect(parseManifest(bytesOf({ manifests: [{ digest, size: 1 }] }), "x")).toMatchObject({ kind: "index" });
    const made = parseManifest(makeManifest(parseConfig(config(), "x"), [{ digest, sizeBytes: 5 }]), "x");
    expect(made).toMatchObject({ kind: "manifest", layers: [{ digest, size: 5 }] });
  });

  test.each<[string, Uint8Array, string]>([
    ["schema 1", bytesOf({ schemaVersion: 1, fsLayers: [] }), "schema 1"],
    ["both at once", manifest({ manifests: [] }), "at once"],
    [
      "a chart",
      manifest({ config: { digest, size: 1, mediaType: "application/vnd.cncf.helm.config.v1+json" } }),
      "no container image",
    ],
    [
      "an encrypted layer",
      manifest({ layers: [{ digest, size: 1, mediaType: "application/vnd.oci.image.layer.v1.tar+gzip+encrypted" }] }),
      "encrypted",
    ],
    [
      "a layer that is elsewhere",
      manifest({
        layers: [{ digest, size: 1, mediaType: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" }],
      }),
      "foreign",
    ],
    ["another digest", manifest({ config: { digest: `sha512:${"a".repeat(128)}`, size: 1 } }), "hexadecimal"],
    ["a negative size", manifest({ layers: [{ digest, size: -1 }] }), "size"],
    ["a digest with a path", manifest({ layers: [{ digest: "sha256:../../etc/passwd", size: 1 }] }), "hexadecimal"],
    ["too many layers", manifest({ layers: Array.from({ length: 1001 }, () => ({ digest, size: 1 })) }), "layers"],
    ["nothing", bytesOf({}), "config"],
  ])("%s is refused", (_what, bytes, message) => {
    expect(refusal(() => parseManifest(bytes, "the image"))).toContain(message);
  });

  test("any bytes and any mutation are read or refused as an image", () => {
    const good = manifest();
    const mutated = fc.record({ at: fc.nat(good.length - 1), byte: fc.nat(255) }).map(({ at, byte }) => {
      const bytes = Uint8Array.from(good);
      bytes[at] = byte;
      return bytes;
    });
    fc.assert(
      fc.property(
        fc.oneof(
          mutated,
          fc.uint8Array(),
          fc.json().map((text) => new TextEncoder().encode(text)),
        ),
        (bytes) => {
          for (const read of [parseManifest, parseConfig]) {
            try {
              read(bytes, "x");
            } catch (error) {
              expect(error).toMatchObject({ code: "image_invalid" });
            }
          }
        },
      ),
      { numRuns: 500 },
    );
  });
});

describe("platforms", () => {
  const entry = (os: string, architecture: string, variant?: string): IndexEntry => ({
    ...{ digest: digestOf(bytesOf([os, architecture, variant])), size: 1 },
    platform: { os, architecture, variant },
  });
  const plain = entry("linux", "amd64");

  test("linux/amd64 is chosen, of its variants the one that every CPU runs", () => {
    expect(choosePlatform([entry("linux", "arm64"), plain, entry("windows", "amd64")], "x")).toBe(plain);
    expect(choosePlatform([entry("linux", "amd64", "v3"), plain], "x")).toBe(plain);
    const single: IndexEntry = { digest, size: 1, platform: undefined };
    expect(choosePlatform([single], "x")).toBe(single);
  });

  test("others are refused, saying what there is", () => {
    const others = [entry("linux", "arm", "v7"), entry("windows", "amd64"), entry("unknown", "unknown")];
    expect(refusal(() => choosePlatform(others, "app:1"))).toBe(
      "Cannot use app:1: it is not for linux/amd64, but for linux/arm/v7, windows/amd64",
    );
    expect(refusal(() => choosePlatform([], "app:1"))).toContain("but for nothing");
  });
});

test("the chain id of one layer is its diff id, of none that of nothing, of more the specification's", () => {
  const [one, two] = [digestOf(bytesOf(1)), digestOf(bytesOf(2))];
  expect(chainId([one])).toBe(one);
  expect(chainId([])).toBe(digestOf(new Uint8Array()));
  expect(chainId([one, two])).toBe(digestOf(new TextEncoder().encode(`${one} ${two}`)));
  const three = chainId([one, two, one]);
  expect(three).toBe(digestOf(new TextEncoder().encode(`${chainId([one, two])} ${one}`)));
});
