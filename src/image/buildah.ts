/**
 * Building by buildah, which keeps its own storage (`STATE/images/build`): a cache of steps, which may go at any time. It gets the images
 * that a Dockerfile needs from our store, never from a registry. It runs in namespaces of its own, so that its mounts and processes end with it.
 */

import { randomBytes } from "node:crypto";
import { MayflyError } from "../contract/errors.ts";
import type { ImageLayer } from "../contract/image.ts";
import { tryLockFile, waitForLock } from "../sys/lock.ts";
import {
  freeBytes,
  isDirectoryEmpty,
  linkFile,
  makeDirectory,
  readBytes,
  readOptional,
  removePath,
  writeText,
} from "../sys/paths.ts";
import { publishFile } from "../sys/publish.ts";
import { runTool, type ToolOptions } from "../sys/tool.ts";
import { blobPath, readDocument } from "./blob-store.ts";
import { type IncomingImage, type IncomingLayer, matchLayers, storedLayer } from "./incoming.ts";
import { digestOf, makeManifest, parseConfig, parseJson, parseManifest } from "./oci-documents.ts";
import { reasonOf } from "./registry-errors.ts";

/** An image of the store that a Dockerfile refers to. */
export interface BaseImage {
  /** Whole reference. */
  name: string;
  configDigest: string;
  manifestDigest: string;
  layers: readonly ImageLayer[];
}

/** What {@link buildImage} takes. */
export interface BuildOptions {
  stateDir: string;
  /** A directory of ours, on the file system of the store. */
  workplace: string;
  context: string;
  dockerfile: string;
  bases: readonly BaseImage[];
  buildArgs: Readonly<Record<string, string>>;
  target?: string | undefined;
  noCache: boolean;
  /** Layers of the store. */
  known: readonly ImageLayer[];
  signal?: AbortSignal;
  /** The step that is carried out. */
  onProgress?: (step: string) => void;
  /** A line of what buildah and the build's commands print. */
  onOutput?: (line: string) => void;
}

const DEADLINE_MS = 3_600_000;
const NAMESPACES = [
  "--mount",
  "--propagation",
  "private",
  "--pid",
  "--fork",
  "--kill-child",
  "--mount-proc",
  "--ipc",
  "--uts",
];
/** Name by which buildah's storage keeps images of ours; what a Dockerfile calls them is said for each build anew. */
const BASE = "mayfly.internal/base";
const TAIL_LINES = 20;
/** What a disk has left at least that is not full. */
const RESERVE_BYTES = 64 * 2 ** 20;
/** Said of the arguments that `--platform` gives, to Dockerfiles that do not ask for them. */
const OWN_WARNING = "[Warning] one or more build args were not consumed: [TARGETARCH TARGETOS TARGETPLATFORM]";

/** Directory of buildah's storage. */
export function buildDirectory(stateDir: string): string {
  return `${stateDir}/images/build`;
}

/**
 * Builds a Dockerfile. Of several builds at once one works and the others wait.
 *
 * @returns the image, whose layers' files are in the workplace or in the store.
 * @throws MayflyError `build_failed` with the last lines of its output; `disk_full`, `tool_missing`, `root_required`, `cancelled`.
 */
export async function buildImage(options: BuildOptions): Promise<IncomingImage> {
  const { stateDir, signal } = options;
  const onWait = () => options.onProgress?.("waiting for another build");
  const wait = { deadlineMs: DEADLINE_MS, onWait, ...(signal === undefined ? {} : { signal }) };
  await makeDirectory(buildDirectory(stateDir), 0o700);
  using _lock = await waitForLock(`${buildDirectory(stateDir)}/lock`, wait);
  const buildah = await Buildah.open(options);
  await buildah.removeContainers();
  await buildah.forgetNames();
  for (const base of options.bases) await buildah.lend(base);
  try {
    const id = await buildah.build();
    options.onProgress?.("taking over what was built");
    return await buildah.export(id);
  } catch (error) {
    await buildah.removeContainers().catch(() => undefined);
    throw error;
  } finally {
    await buildah.forgetNames().catch(() => undefined);
  }
}

/** Removes buildah's cache, unless a build is at work. */
export async function removeBuildCache(stateDir: string): Promise<void> {
  const directory = buildDirectory(stateDir);
  if (await isDirectoryEmpty(directory)) return;
  using lock = tryLockFile(`${directory}/lock`);
  if (lock !== undefined) await removePath(directory);
}

class Buildah {
  private constructor(
    readonly options: BuildOptions,
    readonly driver: string,
  ) {}

  static async open(options: BuildOptions): Promise<Buildah> {
    return new Buildah(options, await driverOf(options));
  }

  /** Copies an image of ours into the storage, unless it is there, and calls it what the Dockerfile does. */
  async lend(base: BaseImage): Promise<void> {
    const { stateDir, workplace } = this.options;
    const stored = `${BASE}:${base.configDigest.slice("sha256:".length)}`;
    const known = await this.#buildah(["inspect", "--type", "image", "--format", "{{.FromImageID}}", stored]).then(
      () => true,
      () => false,
    );
    if (!known) {
      this.options.onProgress?.(`lending ${base.name} to the build`);
      const directory = `${workplace}/lent-${randomBytes(4).toString("hex")}`;
      await makeDirectory(directory, 0o700);
      const place = (digest: string) => `${directory}/${digest.slice("sha256:".length)}`;
      const { config, manifest } = await documentsFor(stateDir, base);
      await writeText(`${directory}/version`, "Directory Transport Version: 1.1\n");
      await writeText(`${directory}/manifest.json`, manifest);
      await writeText(place(digestOf(config)), config);
      for (const { digest } of base.layers) await linkFile(blobPath(stateDir, digest), place(digest));
      const target = `containers-storage:[${this.driver}@${this.#root}+${this.#runRoot}]${stored}`;
      await this.#run(["skopeo", "--insecure-policy", "copy", "--quiet", `dir:${directory}`, target]);
      await removePath(directory);
    }
    await this.#buildah(["tag", stored, base.name]);
  }

  /** Takes back the names that Dockerfiles had for our images: also those of a build that was killed. */
  async forgetNames(): Promise<void> {
    const { stdout } = await this.#buildah(["images", "--json"]);
    const lent = namesIn(stdout).filter((names) => names.some((name) => name.startsWith(`${BASE}:`)));
    const borrowed = lent.flat().filter((name) => !name.startsWith(`${BASE}:`));
    if (borrowed.length > 0) await this.#buildah(["rmi", ...borrowed]);
  }

  /** Removes the containers of builds that came to no end, with what they have written: no build uses them again. Done even if ours is cancelled. */
  async removeContainers(): Promise<void> {
    const { signal: _, ...options } = this.options;
    await runBuildah([...this.#words, "rm", "--all"], options);
  }

  /** @returns the image's id in the storage. */
  async build(): Promise<string> {
    const { context, dockerfile, buildArgs, target, noCache, workplace } = this.options;
    const idFile = `${workplace}/id`;
    const tail: string[] = [];
    const onLine = (line: string) => {
      if (line === OWN_WARNING) return;
      tail.push(line);
      if (tail.length > TAIL_LINES) tail.shift();
      const step = /^(?:\[\d+\/\d+\] )?STEP \d+\/\d+: .*/.exec(line)?.[0];
      if (step !== undefined) this.options.onProgress?.(step.slice(0, 200));
      this.options.onOutput?.(line);
    };
    const command = [
      ...["build", "--isolation", "chroot", "--format", "docker", "--layers", "--pull=never", "--iidfile", idFile],
      ...["--file", dockerfile, "--platform", "linux/amd64"],
      ...Object.entries(buildArgs).flatMap(([name, value]) => ["--build-arg", `${name}=${value}`]),
      ...(target === undefined ? [] : ["--target", target]),
      ...(noCache ? ["--no-cache"] : []),
      ...["--", context],
    ];
    await this.#buildah(command, { onLine }).catch(async (error: unknown) => {
      throw buildError(error, tail, await freeBytes(workplace));
    });
    return (await readOptional(idFile))?.trim() ?? "";
  }

  async export(id: string): Promise<IncomingImage> {
    const { stateDir, known, workplace } = this.options;
    const directory = `${workplace}/built`;
    // Not compressed: layers that the store has are taken from there anyway.
    await this.#buildah(["push", "--quiet", "--disable-compression", id, `dir:${directory}`]);
    const what = "what was built";
    const manifest = parseManifest(await readBytes(`${directory}/manifest.json`), what);
    if (manifest.kind === "index") throw new MayflyError("build_failed", "Cannot take what was built: it is an index");
    const path = (digest: string) => `${directory}/${digest.slice("sha256:".length)}`;
    const config = parseConfig(await readBytes(path(manifest.config.digest)), what);
    const exported = await matchLayers(config, manifest.layers, async (digest) => path(digest), what);
    const layers: IncomingLayer[] = [];
    for (const layer of exported) layers.push((await storedLayer(stateDir, known, layer.diffId)) ?? layer);
    return { names: [], config, layers };
  }

  get #root(): string {
    return `${buildDirectory(this.options.stateDir)}/storage`;
  }

  /** What buildah thinks is mounted holds for this build only. */
  get #runRoot(): string {
    return `${this.options.workplace}/run`;
  }

  /** buildah on our storage. */
  get #words(): string[] {
    return ["buildah", `--root=${this.#root}`, `--runroot=${this.#runRoot}`, `--storage-driver=${this.driver}`];
  }

  #buildah(words: readonly string[], options: Partial<ToolOptions> = {}) {
    return this.#run([...this.#words, ...words], options);
  }

  #run(command: readonly string[], options: Partial<ToolOptions> = {}) {
    return runBuildah(command, this.options, options);
  }
}

async function runBuildah(
  command: readonly string[],
  { workplace, signal }: Pick<BuildOptions, "workplace" | "signal">,
  options: Partial<ToolOptions> = {},
) {
  const stop = signal === undefined ? {} : { signal };
  // Its /tmp is the workplace: what is left there goes with it.
  const env = { TMPDIR: workplace, BUILDAH_ISOLATION: "chroot" };
  return runTool(["unshare", ...NAMESPACES, ...command], {
    deadlineMs: DEADLINE_MS,
    endsWithUs: true,
    ...stop,
    env,
    ...options,
  });
}

/** overlayfs, unless the file system below cannot carry it; found out once. */
async function driverOf(options: BuildOptions): Promise<string> {
  const file = `${buildDirectory(options.stateDir)}/driver`;
  const known = (await readOptional(file))?.trim();
  if (known === "overlay" || known === "vfs") return known;
  const trial = `${options.workplace}/trial`;
  const roots = [`--root=${trial}/root`, `--runroot=${trial}/run`];
  const driver = await runBuildah(["buildah", ...roots, "--storage-driver=overlay", "info"], options).then(
    () => "overlay",
    (error: unknown) => {
      if (error instanceof MayflyError && error.code === "tool_failed") return "vfs";
      throw error;
    },
  );
  await publishFile(file, `${driver}\n`);
  return driver;
}

/** buildah refuses to build on an image whose configuration does not tell the history of its layers, which it need not: then it is made up. */
async function documentsFor(stateDir: string, base: BaseImage): Promise<{ config: Uint8Array; manifest: Uint8Array }> {
  const config = await readDocument(stateDir, base.configDigest);
  const manifest = await readDocument(stateDir, base.manifestDigest);
  const document = parseJson(config, base.name);
  const entries: unknown[] = Array.isArray(document["history"]) ? document["history"] : [];
  const isEmpty = (entry: unknown) =>
    typeof entry === "object" && entry !== null && "empty_layer" in entry && entry.empty_layer === true;
  if (entries.filter((entry) => !isEmpty(entry)).length === base.layers.length) return { config, manifest };
  // Without a time its cache would not know its own steps again.
  const history = base.layers.map(() => ({ created: "1970-01-01T00:00:00Z", created_by: "unknown" }));
  const told = new TextEncoder().encode(JSON.stringify({ ...document, history }));
  return { config: told, manifest: makeManifest({ bytes: told, digest: digestOf(told) }, base.layers) };
}

function namesIn(json: string): string[][] {
  const images: unknown = JSON.parse(json.trim() === "" ? "[]" : json);
  if (!Array.isArray(images)) return [];
  return images.map((image: unknown) => {
    const names: unknown = typeof image === "object" && image !== null && "names" in image ? image.names : [];
    return Array.isArray(names) ? names.map(String) : [];
  });
}

/** buildah does not always say that the disk was full: what lacks is then told by what is left. */
function buildError(error: unknown, tail: readonly string[], free: number): unknown {
  if (!(error instanceof MayflyError) || error.code !== "tool_failed") return error;
  const text = tail.join("\n");
  const reason = reasonOf(text);
  const isFull = /no space left on device/i.test(text) || free < RESERVE_BYTES;
  const code = isFull ? "disk_full" : "build_failed";
  return new MayflyError(code, `Cannot build the image: ${reason}`, {
    details: {
      stderrTail: text,
      ...(error.details.exitCode === undefined ? {} : { exitCode: error.details.exitCode }),
    },
    cause: error,
  });
}
