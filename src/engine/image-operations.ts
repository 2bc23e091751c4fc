/** How images come into the store: pulled, loaded, built, imported. Each may take minutes, says how far it is, and leaves nothing when it fails. */
import { randomBytes } from "node:crypto";
import { dirname, isAbsolute, join } from "node:path";
import type {
  BuildImageRequest,
  Image,
  ImportImageRequest,
  LoadImageRequest,
  PullImageRequest,
} from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import { familiarName, formatReference, parseReference, type Reference, tryReference } from "../contract/reference.ts";
import { readArchive } from "../image/archive.ts";
import { type BaseImage, buildImage } from "../image/buildah.ts";
import type { ContentProgress } from "../image/content.ts";
import { imagesOf } from "../image/dockerfile.ts";
import { importRootfs } from "../image/import.ts";
import { type IncomingImage, storeImage } from "../image/incoming.ts";
import { pullImage, type RegistryAccess } from "../image/registry.ts";
import { imagesDirectory, openWorkplace } from "../image/store.ts";
import { identityOf, makeDirectory, readStart, writeStream } from "../sys/paths.ts";
import { diskFull } from "../sys/publish.ts";
import type { Events } from "./events.ts";
import type { ImageHost, Images, NewImage } from "./images.ts";
import type { ProgressOptions, PulledImage, ReceivedArchive } from "./interface.ts";

const MAX_DOCKERFILE_BYTES = 2 ** 20;
const DOCKERFILES = ["Containerfile", "Dockerfile"];

/** The operations on the images of a state directory. */
export class ImageOperations {
  /** Ends of the pulls at work, by name. */
  readonly #pulls = new Map<string, Promise<void>>();
  /** Archives that were sent, which have no name that anybody knows. */
  readonly #received = new Set<string>();

  constructor(
    private readonly host: Pick<ImageHost, "config">,
    private readonly images: Images,
    private readonly events: Events,
  ) {}

  /** @throws what `pullImage` and `storeImage` throw. */
  pull(request: PullImageRequest, options: ProgressOptions): Promise<PulledImage> {
    const reference = parseReference(request.reference);
    const pull = () => this.#inWorkplace((workplace) => this.#pull(reference, request, workplace, options));
    return this.#alone(formatReference(reference), options, pull);
  }

  /** One pull of a name at a time: whoever waits finds what the other has fetched. */
  async #alone<T>(name: string, options: ProgressOptions, pull: () => Promise<T>): Promise<T> {
    for (let other = this.#pulls.get(name); other !== undefined; other = this.#pulls.get(name)) {
      options.onProgress?.("waiting for somebody who pulls the same");
      await options.deadline.race(other, `the end of another pull of ${name}`);
    }
    const ended = Promise.withResolvers<void>();
    this.#pulls.set(name, ended.promise);
    try {
      return await pull();
    } finally {
      this.#pulls.delete(name);
      ended.resolve();
    }
  }

  /** Takes all images of an archive. @throws what `readArchive` and `storeImage` throw. */
  load({ path }: LoadImageRequest, options: ProgressOptions): Promise<Image[]> {
    return this.#inWorkplace(async (workplace) => {
      const incoming = await readArchive({
        ...{ stateDir: this.#stateDir, path, workplace, known: this.images.layers() },
        ...stopping(options),
        name: this.#received.has(path) ? "what was sent" : path,
        onProgress: (bytes) => options.onProgress?.(`reading the archive, ${mebibytes(bytes)}`),
      });
      const loaded: Image[] = [];
      for (const [index, image] of incoming.entries()) {
        const which = incoming.length === 1 ? "" : `image ${index + 1} of ${incoming.length}: `;
        loaded.push(...(await this.#store(image, image.names, null, prefixed(options, which))));
      }
      this.#tell("image.loaded", loaded);
      return loaded;
    });
  }

  /** Writes an archive that is sent to the disk of the store. @throws `disk_full`, `cancelled`. */
  async receive(content: AsyncIterable<Uint8Array>): Promise<ReceivedArchive> {
    await makeDirectory(imagesDirectory(this.#stateDir));
    const workplace = await openWorkplace(this.#stateDir, randomBytes(6).toString("hex"));
    const path = `${workplace.path}/archive`;
    try {
      await writeStream(path, content);
    } catch (error) {
      await workplace[Symbol.asyncDispose]();
      throw diskFull(error, path);
    }
    this.#received.add(path);
    const dispose = () => {
      this.#received.delete(path);
      return workplace[Symbol.asyncDispose]();
    };
    return { path, [Symbol.asyncDispose]: dispose };
  }

  /** Builds a Dockerfile; images that it needs and that are not here are pulled first. @throws `build_failed`, and what a pull throws. */
  async build(request: BuildImageRequest, options: ProgressOptions): Promise<Image[]> {
    const names = (request.tags ?? []).map((tag) => formatReference(tagReference(tag)));
    const dockerfile = await dockerfileOf(request);
    const text = new TextDecoder().decode(await readStart(dockerfile, MAX_DOCKERFILE_BYTES + 1));
    if (text.length > MAX_DOCKERFILE_BYTES)
      throw cannotBuild(dockerfile, `it has more than ${MAX_DOCKERFILE_BYTES} bytes`);
    const { buildArgs = {}, target, noCache = false } = request;
    return this.#inWorkplace(async (workplace) => {
      const bases = await this.#bases(imagesOf(text, buildArgs, target), dockerfile, request, workplace, options);
      const built = await buildImage({
        ...{
          stateDir: this.#stateDir,
          workplace,
          context: request.context,
          dockerfile,
          bases,
          buildArgs,
          target,
          noCache,
        },
        ...{ known: this.images.layers(), ...stopping(options) },
        onProgress: (step) => options.onProgress?.(step),
        onOutput: (line) => options.onOutput?.(line),
      });
      const images = await this.#store(built, names, null, options);
      this.#tell("image.built", images);
      return images;
    });
  }

  /** Imports a tarball under a name, which moves to it if another image had it (as docker's tags do). */
  import(request: ImportImageRequest, options: ProgressOptions): Promise<Image> {
    if (!isAbsolute(request.path)) {
      throw new MayflyError("invalid_argument", `Cannot import ${request.path}: the path is not absolute`);
    }
    return this.images.adding(async () => {
      const { manifest } = await importRootfs({
        ...{ stateDir: this.#stateDir, tarballPath: request.path, ...stopping(options) },
        onProgress: (stage, bytes) => options.onProgress?.(`${stage} ${mebibytes(bytes)}`),
      });
      const { digest, fstype, sizeBytes } = manifest;
      const images = await this.images.add({ ...NO_CONFIGURATION, digest, fstype, sizeBytes }, [request.name]);
      this.#tell("image.imported", images);
      return images[0] ?? this.images.get(request.name);
    });
  }

  get #stateDir(): string {
    return this.host.config.stateDir;
  }

  async #pull(
    reference: Reference,
    access: RegistryAccess,
    workplace: string,
    options: ProgressOptions,
  ): Promise<PulledImage> {
    const name = formatReference(reference);
    const { credentials, authFile, certDir, tlsVerify } = access;
    const known = this.images.named(name);
    options.onProgress?.(`asking ${reference.domain} for ${familiarName(name)}`);
    const pulled = await pullImage({
      ...{ stateDir: this.#stateDir, reference, workplace, known: this.images.layers(), ...stopping(options) },
      ...{ credentials, authFile, certDir, tlsVerify },
      knownDigest: known?.name === name ? (known.repoDigest ?? undefined) : undefined,
      onProgress: ({ layers, layersDone, bytes, totalBytes }) =>
        options.onProgress?.(
          `fetching, ${layersDone} of ${layers} layers, ${mebibytes(bytes)} of ${mebibytes(totalBytes)}`,
        ),
    });
    if (pulled.image === undefined) return { image: this.images.get(name), unchanged: true };
    const images = await this.#store(pulled.image, [name], pulled.repoDigest, options);
    this.#tell("image.pulled", images);
    return { image: images[0] ?? this.images.get(name), unchanged: false };
  }

  async #store(
    incoming: IncomingImage,
    names: readonly string[],
    repoDigest: string | null,
    options: ProgressOptions,
  ): Promise<Image[]> {
    const { content, config, manifestDigest, layers } = await storeImage(incoming, {
      ...{ stateDir: this.#stateDir, known: this.images.layers(), ...stopping(options) },
      onProgress: (progress) => options.onProgress?.(contentStep(progress)),
    });
    const { digest, fstype, sizeBytes } = content.manifest;
    const image: NewImage = {
      ...{ digest, fstype, sizeBytes, configDigest: config.digest, manifestDigest, repoDigest },
      ...{ architecture: config.architecture, builtAt: config.builtAt, layers, config: config.config },
    };
    return this.images.add(image, names);
  }

  /** The images that a Dockerfile needs, pulled if they are not here. */
  async #bases(
    names: readonly string[],
    dockerfile: string,
    access: RegistryAccess,
    workplace: string,
    options: ProgressOptions,
  ): Promise<BaseImage[]> {
    const bases: BaseImage[] = [];
    for (const [index, name] of names.entries()) {
      const reference = tryReference(name);
      if (reference === undefined) throw cannotBuild(dockerfile, `${JSON.stringify(name)} is no name of an image`);
      const whole = formatReference(reference);
      const there = this.images.named(whole);
      const place = `${workplace}/base-${index}`;
      if (there === undefined) await makeDirectory(place, 0o700);
      const image = there ?? (await this.#pull(reference, access, place, options)).image;
      const { configDigest, manifestDigest, layers } = image;
      if (configDigest === null || manifestDigest === null) {
        throw cannotBuild(dockerfile, `${name} is an imported root file system, not an image with layers`);
      }
      bases.push({ name: whole, configDigest, manifestDigest, layers });
    }
    return bases;
  }

  /** What is done in the workplace ends before it goes, and before what was not named goes. */
  #inWorkplace<T>(work: (path: string) => Promise<T>): Promise<T> {
    return this.images.adding(async () => {
      await makeDirectory(imagesDirectory(this.#stateDir));
      await using workplace = await openWorkplace(this.#stateDir, randomBytes(6).toString("hex"));
      return await work(workplace.path);
    });
  }

  #tell(type: string, images: readonly Image[]): void {
    for (const { id, name, digest } of images) this.events.emit(type, id, name, { digest });
  }
}

const NO_CONFIGURATION = {
  ...{ configDigest: null, manifestDigest: null, repoDigest: null, architecture: null, builtAt: null },
  ...{ layers: [], config: {} },
};

function tagReference(tag: string): Reference {
  const reference = parseReference(tag);
  if (reference.digest === undefined) return reference;
  throw new MayflyError("invalid_argument", `Cannot tag an image as ${tag}: a name that is given has no digest`);
}

async function dockerfileOf({ context, dockerfile }: BuildImageRequest): Promise<string> {
  if (!(await identityOf(context))?.isDirectory) {
    throw new MayflyError("file_not_found", `Cannot build ${context}: there is no such directory`, {
      details: { path: context },
    });
  }
  const candidates = dockerfile === undefined ? DOCKERFILES.map((name) => join(context, name)) : [dockerfile];
  for (const path of candidates) if ((await identityOf(path))?.isFile) return path;
  throw new MayflyError("file_not_found", `Cannot build ${context}: there is no ${candidates.join(" and no ")}`, {
    details: { path: candidates[0] ?? dirname(context) },
  });
}

function cannotBuild(dockerfile: string, why: string): MayflyError {
  return new MayflyError("build_failed", `Cannot build ${dockerfile}: ${why}`, { details: { path: dockerfile } });
}

function contentStep(progress: ContentProgress): string {
  if (progress.stage === "wait") return "waiting for somebody who unpacks the same";
  if (progress.stage === "pack") return `packing ${mebibytes(progress.bytes)}`;
  return `unpacking layer ${progress.layer} of ${progress.layers}, ${mebibytes(progress.bytes)}`;
}

function prefixed(options: ProgressOptions, prefix: string): ProgressOptions {
  const { onProgress } = options;
  return onProgress === undefined ? options : { ...options, onProgress: (step) => onProgress(`${prefix}${step}`) };
}

function stopping({ deadline }: ProgressOptions): { signal?: AbortSignal } {
  return deadline.signal === undefined ? {} : { signal: deadline.signal };
}

function mebibytes(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(bytes < 10 * 2 ** 20 ? 1 : 0)} MiB`;
}
