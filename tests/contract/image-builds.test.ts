/** Building Dockerfiles by buildah, on images of ours, without a network. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import type { BuildImageRequest } from "../../src/contract/api.ts";
import { namesIn, writeText } from "../../src/sys/paths.ts";
import { exists } from "../../src/sys/publish.ts";
import { findTool, runTool } from "../../src/sys/tool.ts";
import { readCpio } from "../support/cpio.ts";
import { hostArtifacts, processesMentioning, unavailable } from "../support/engine-host.ts";
import { openImages, refusal, type TestImages } from "../support/image-store.ts";
import { writeLayout } from "../support/oci-layout.ts";

const missing = ["skopeo", "buildah"].filter((tool) => findTool(tool) === undefined);
const why = unavailable ?? (missing.length === 0 ? undefined : `${missing.join(", ")} missing`);

let store: TestImages;
let lines: string[] = [];

beforeEach(async () => {
  store = await openImages();
  lines = [];
});

afterEach(async () => {
  await store[Symbol.asyncDispose]();
});

/** The guest's busybox as an image that needs nothing else, called `box`. */
async function loadBox(name = "box"): Promise<void> {
  const initramfs = readCpio(readFileSync(hostArtifacts().initramfs.path));
  const busybox = initramfs.find((entry) => entry.name.endsWith("bin/busybox"))?.data ?? new Uint8Array();
  const applets = "sh cat echo id ls mkdir sleep false".split(" ");
  const layer = [
    ...["bin/", "etc/", "proc/", "dev/", "sys/"].map((directory) => ({
      name: directory,
      type: "5",
      mode: 0o755,
    })),
    { name: "tmp/", type: "5", mode: 0o1777 },
    { name: "bin/busybox", content: busybox, mode: 0o755 },
    ...applets.map((applet) => ({ name: `bin/${applet}`, type: "2", link: "busybox" })),
    { name: "etc/passwd", content: "root:x:0:0::/:/bin/sh\napp:x:7:7::/:/bin/sh\n" },
  ];
  const config = { Env: ["PATH=/bin"], Cmd: ["sh"], Healthcheck: { Test: ["CMD", "true"] } };
  await writeLayout(`${store.work}/box`, [{ layers: [layer], config, name, compression: "gzip" }]);
  await store.operations.load({ path: `${store.work}/box` }, store.options());
}

/** Builds a Dockerfile with a file `data` beside it. */
async function build(dockerfile: string, request: Partial<BuildImageRequest> = {}, signal?: AbortSignal) {
  await writeText(`${store.work}/context/Dockerfile`, dockerfile);
  await writeText(`${store.work}/context/data`, "from the context\n");
  const onOutput = (line: string) => void lines.push(line);
  return store.operations.build(
    { context: `${store.work}/context`, ...request },
    { ...store.options(signal), onOutput },
  );
}

async function contents(image: Parameters<TestImages["mounted"]>[0] | undefined, path: string): Promise<string> {
  if (image === undefined) throw new Error("nothing was built");
  return store.mounted(image, async (directory) => (await runTool(["cat", `${directory}/${path}`])).stdout);
}

/** Processes of builds, and what they have mounted. */
function leftRunning(): string[] {
  const mounts = readFileSync("/proc/self/mounts", "utf8")
    .split("\n")
    .filter((line) => line.includes(store.work));
  return [...processesMentioning(store.work).keys()].map(String).concat(mounts);
}

/** What builds have under way in buildah's storage. */
function containersOfBuilds(): string[] {
  const storage = `${store.stateDir}/images/build/storage`;
  return ["overlay", "vfs"].flatMap((driver) => {
    const file = `${storage}/${driver}-containers/containers.json`;
    return existsSync(file) ? [readFileSync(file, "utf8").trim()].filter((json) => json !== "[]") : [];
  });
}

describe.skipIf(why !== undefined)(`builds${why === undefined ? "" : ` (${why})`}`, () => {
  test("two stages on a loaded image, without a network: layers are shared, the configuration is whole", async () => {
    await loadBox("localhost:5000/team/box:1");
    const [image, second] = await build(
      `ARG BASE=localhost:5000/team/box
       FROM \${BASE}:1 AS made
       ARG WORD=none
       RUN echo "made with $WORD" > /made && id -u >> /made
       FROM \${BASE}:1
       COPY --from=made /made /made
       COPY --chown=7:7 data /data
       COPY --from=localhost:5000/team/box:1 /etc/passwd /copied
       USER app
       WORKDIR /tmp
       EXPOSE 8080
       VOLUME /var
       STOPSIGNAL SIGINT
       HEALTHCHECK --interval=3s CMD cat /data
       LABEL made=here
       ENTRYPOINT ["cat"]
       CMD ["/made"]`,
      { tags: ["app:1", "localhost/app"], buildArgs: { WORD: "care" } },
    );
    expect([image?.name, second?.name]).toEqual(["docker.io/library/app:1", "localhost/app:latest"]);
    expect(image?.config).toMatchObject({
      ...{ user: "app", workingDir: "/tmp", exposedPorts: ["8080/tcp"], volumes: ["/var"], stopSignal: "SIGINT" },
      ...{
        entrypoint: ["cat"],
        cmd: ["/made"],
        env: ["PATH=/bin"],
        healthCheck: { test: ["CMD-SHELL", "cat /data"], intervalMs: 3000 },
      },
    });
    expect(image?.config.labels).toMatchObject({ made: "here" });
    expect(await contents(image, "made")).toBe("made with care\n0\n");
    expect(await contents(image, "data")).toBe("from the context\n");
    const base = store.images.get("localhost:5000/team/box:1");
    expect(image?.layers[0]).toEqual(base.layers[0] ?? { digest: "", diffId: "", sizeBytes: 0 });
    expect(lines.some((line) => line.includes("STEP 1/3: FROM localhost:5000/team/box:1 AS made"))).toBe(true);
    expect(store.steps.some((step) => step.includes("STEP"))).toBe(true);
    // What was built is built on like anything else, and a step that was carried out is not repeated.
    lines = [];
    const [next] = await build("FROM app:1\nRUN echo more > /tmp/more", { tags: ["app:2"] });
    expect(await contents(next, "tmp/more")).toBe("more\n");
    expect(next?.config.healthCheck?.intervalMs).toBe(3000);
    lines = [];
    const [again] = await build("FROM app:1\nRUN echo more > /tmp/more", { tags: ["app:3"] });
    expect([again?.configDigest, lines.some((line) => line.includes("Using cache"))]).toEqual([
      next?.configDigest ?? "",
      true,
    ]);
    lines = [];
    await build("FROM app:1\nRUN echo more > /tmp/more", { noCache: true });
    expect(lines.some((line) => line.includes("Using cache"))).toBe(false);
    expect(leftRunning()).toEqual([]);
    expect(await store.images.reclaimableBytes()).toBeGreaterThan(0);
    await store.images.prune(false);
    expect(await exists(`${store.stateDir}/images/build`)).toBe(false);
  }, 60_000);

  test("a name that moves is what the next build stands on", async () => {
    await loadBox();
    const dockerfile = "FROM box\nRUN cat /etc/which || echo first";
    const [one] = await build(dockerfile);
    expect(one?.name).toBe("<none>");
    expect(lines).toContain("first");
    await build("FROM box\nRUN echo second > /etc/which", { tags: ["box"] });
    lines = [];
    await build(dockerfile);
    expect(lines).toContain("second");
  }, 60_000);

  test("up to a target, with another file", async () => {
    await loadBox();
    await writeText(
      `${store.work}/Other`,
      "FROM box AS one\nRUN echo 1 > /n\nFROM nosuch.invalid/x AS two\nRUN echo 2 > /n\n",
    );
    const [image] = await build("", { dockerfile: `${store.work}/Other`, target: "one" });
    expect(await contents(image, "n")).toBe("1\n");
  }, 60_000);

  test("what fails says why, with the last lines, and leaves nothing", async () => {
    await loadBox();
    const before = await store.stored();
    const failed = await refusal(build("FROM box\nRUN echo oh no && exit 3"));
    expect(failed.code).toBe("build_failed");
    expect(failed.message).toContain("exit status 3");
    expect(failed.details.stderrTail).toContain("oh no");
    const cases: [dockerfile: string, code: string, message: string][] = [
      ["FROM box\nNONSENSE", "build_failed", "NONSENSE"],
      ["FROM box\nCOPY nothing /", "build_failed", "nothing"],
      ["FROM Box:1", "build_failed", "no name of an image"],
      ["FROM nosuch.invalid/x:1", "registry_unreachable", "nosuch.invalid"],
      ["FROM box\nCOPY --from=nosuch.invalid/y / /", "registry_unreachable", "nosuch.invalid/y"],
      ["", "build_failed", ""],
    ];
    for (const [dockerfile, code, message] of cases) {
      const error = await refusal(build(dockerfile));
      expect([dockerfile, error.code, error.message.includes(message)]).toEqual([dockerfile, code, true]);
    }
    expect((await refusal(store.operations.build({ context: "/no/such" }, store.options()))).code).toBe(
      "file_not_found",
    );
    expect((await refusal(build("FROM box", { dockerfile: "/no/such" }))).code).toBe("file_not_found");
    expect((await refusal(build("FROM box", { tags: ["Bad"] }))).code).toBe("invalid_argument");
    expect(await store.stored()).toEqual(before);
    expect((await namesIn(`${store.stateDir}/images/sha256`)).filter((name) => name.startsWith("."))).toEqual([]);
    expect([leftRunning(), containersOfBuilds()]).toEqual([[], []]);
  }, 60_000);

  test("a build that is cancelled ends with all that it has started; the next one works", async () => {
    await loadBox();
    const abort = new AbortController();
    const onOutput = (line: string) => line.includes("begun") && abort.abort();
    await writeText(`${store.work}/context/Dockerfile`, "FROM box\nRUN echo begun && sleep 1000");
    const options = { ...store.options(abort.signal), onOutput: (line: string) => void onOutput(line) };
    const error = await refusal(store.operations.build({ context: `${store.work}/context` }, options));
    expect(error.code).toBe("cancelled");
    expect([leftRunning(), containersOfBuilds()]).toEqual([[], []]);
    const [image] = await build("FROM box\nRUN echo works > /works");
    expect(await contents(image, "works")).toBe("works\n");
  }, 60_000);

  test("two builds at once wait for each other", async () => {
    await loadBox();
    const [one, two] = await Promise.all([
      build("FROM box\nRUN echo x > /x", { tags: ["one"] }),
      build("FROM box\nRUN echo x > /x", { tags: ["two"] }),
    ]);
    expect(one[0]?.digest).toBe(two[0]?.digest ?? "");
    expect(store.steps).toContain("waiting for another build");
  }, 60_000);

  test("an imported root file system is no image to build on", async () => {
    await runTool(["sh", "-c", "mkdir r && tar -C r -cf r.tar ."], { cwd: store.work });
    const image = await store.operations.import({ name: "rootfs", path: `${store.work}/r.tar` }, store.options());
    await store.images.tag(image.id, "rootfs:1");
    expect((await refusal(build("FROM rootfs:1"))).message).toContain("imported root file system");
  });
});
