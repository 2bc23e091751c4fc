/**
 * Images of registries, by skopeo: it knows their protocol, authentication, TLS and mirrors (containers-registries.conf(5)). Manifest and
 * configuration are asked for apart from the layers, since skopeo would translate docker's into OCI's, which has no health checks.
 */

import { MayflyError } from "../contract/errors.ts";
import type { ImageLayer } from "../contract/image.ts";
import { formatReference, isLoopback, type Reference } from "../contract/reference.ts";
import { watchGrowth } from "../sys/growth.ts";
import { freeBytes, linkFile, makeDirectory, readBytes, writeText } from "../sys/paths.ts";
import { exists } from "../sys/publish.ts";
import { runTool } from "../sys/tool.ts";
import { blobPath, hasBlob } from "./blob-store.ts";
import { type IncomingImage, matchLayers } from "./incoming.ts";
import {
  choosePlatform,
  digestOf,
  type ManifestDocument,
  parseConfig,
  parseManifest,
  type TopDocument,
} from "./oci-documents.ts";
import { registryError } from "./registry-errors.ts";

/** How a registry is reached. */
export interface RegistryAccess {
  credentials?: { username: string; password: string } | undefined;
  authFile?: string | undefined;
  certDir?: string | undefined;
  tlsVerify?: boolean | undefined;
}

/** What {@link pullImage} takes. */
export interface PullOptions extends RegistryAccess {
  stateDir: string;
  reference: Reference;
  /** A directory of ours, on the file system of the store. */
  workplace: string;
  /** Layers of the store. */
  known: readonly ImageLayer[];
  /** The digest that the registry gave for this name the last time, if the image is still there. */
  knownDigest?: string | undefined;
  signal?: AbortSignal;
  onProgress?: (progress: PullProgress) => void;
}

/** How far it is: layers that are there of all, and bytes of those that had to be fetched. */
export interface PullProgress {
  layers: number;
  layersDone: number;
  bytes: number;
  totalBytes: number;
}

/** What a registry has under a name. `image` is absent if it is what is known already. */
export interface Pulled {
  /** Digest of the index or manifest that the name stands for. */
  repoDigest: string;
  image?: IncomingImage;
}

const ASK_DEADLINE_MS = 120_000;
const COPY_DEADLINE_MS = 3_600_000;
/** Left free on the disk. */
const RESERVE_BYTES = 64 * 2 ** 20;
/** What a registry may send beyond the sizes that the manifest tells: documents of skopeo's making. */
const SLACK_BYTES = 16 * 2 ** 20;
const SYSTEM_POLICY = "/etc/containers/policy.json";

/**
 * Fetches an image, without the layers that the store has. What is fetched lies in the workplace, its digests are still to be checked.
 *
 * @throws MayflyError `image_not_found`, `registry_denied`, `registry_unreachable`, `image_invalid`, `invalid_argument` for unverified TLS
 * elsewhere than on the loopback address, `disk_full`, `tool_missing`, `cancelled`.
 */
export async function pullImage(options: PullOptions): Promise<Pulled> {
  const what = formatReference(options.reference);
  const skopeo = await Skopeo.open(options);
  const top = await skopeo.manifest(options.reference);
  const repoDigest = digestOf(top);
  checkDigest(options.reference.digest, repoDigest, what);
  if (repoDigest === options.knownDigest) return { repoDigest };
  const { bytes, manifest } = await platformManifest(skopeo, options.reference, top, what);
  const pinned = { ...repositoryOf(options.reference), digest: digestOf(bytes) };
  const configBytes = await skopeo.config(pinned);
  checkDigest(manifest.config.digest, digestOf(configBytes), what);
  const config = parseConfig(configBytes, what);
  await fetchLayers(skopeo, options, pinned, manifest);
  const path = (digest: string) => `${skopeo.layout}/blobs/sha256/${digest.slice("sha256:".length)}`;
  const pathOf = async (digest: string) => ((await exists(path(digest))) ? path(digest) : undefined);
  const layers = await matchLayers(config, manifest.layers, pathOf, what);
  return { repoDigest, image: { names: [what], config, manifest: bytes, layers } };
}

async function platformManifest(skopeo: Skopeo, reference: Reference, top: Uint8Array, what: string) {
  const parsed: TopDocument = parseManifest(top, what);
  if (parsed.kind === "manifest") return { bytes: top, manifest: parsed };
  const { digest } = choosePlatform(parsed.entries, what);
  const bytes = await skopeo.manifest({ ...repositoryOf(reference), digest });
  checkDigest(digest, digestOf(bytes), what);
  const manifest = parseManifest(bytes, what);
  if (manifest.kind === "manifest") return { bytes, manifest };
  throw new MayflyError("image_invalid", `Cannot use ${what}: its index names another index`);
}

/** Gives skopeo the layers that the store has, and lets it fetch the others. */
async function fetchLayers(
  skopeo: Skopeo,
  { stateDir, known, onProgress }: PullOptions,
  pinned: Reference,
  { layers }: ManifestDocument,
): Promise<void> {
  const blobs = `${skopeo.layout}/blobs/sha256`;
  await makeDirectory(blobs, 0o700);
  const wanted = new Map(layers.map(({ digest, size }) => [digest, size]));
  let missingBytes = 0;
  let present = 0;
  for (const [digest, size] of wanted) {
    const isKnown = known.some((layer) => layer.digest === digest);
    if (isKnown && (await hasBlob(stateDir, digest, size))) {
      await linkFile(blobPath(stateDir, digest), `${blobs}/${digest.slice("sha256:".length)}`);
      present++;
    } else {
      missingBytes += size;
    }
  }
  const free = (await freeBytes(skopeo.layout)) - RESERVE_BYTES;
  if (missingBytes > free) {
    const sizes = `its layers have ${missingBytes} bytes, and ${Math.max(0, free)} can be used`;
    throw new MayflyError("disk_full", `Cannot pull ${formatReference(pinned)}: ${sizes}`, {
      details: { path: skopeo.layout },
    });
  }
  const tooMuch = new AbortController();
  const report = ({ files, bytes }: { files: number; bytes: number }) => {
    if (bytes > missingBytes + SLACK_BYTES) tooMuch.abort();
    const layersDone = Math.min(wanted.size, present + files);
    onProgress?.({ layers: wanted.size, layersDone, bytes: Math.min(bytes, missingBytes), totalBytes: missingBytes });
  };
  report({ files: 0, bytes: 0 });
  using _watch = watchGrowth({ parts: skopeo.layout, finished: blobs }, report);
  await skopeo.copy(pinned, tooMuch.signal).catch((error: unknown) => {
    if (!tooMuch.signal.aborted) throw error;
    throw new MayflyError(
      "image_invalid",
      `Cannot pull ${formatReference(pinned)}: its layers are larger than its manifest says`,
    );
  });
}

function repositoryOf({ domain, path }: Reference): Reference {
  return { domain, path };
}

function checkDigest(wanted: string | undefined, found: string, what: string): void {
  if (wanted === undefined || wanted === found) return;
  throw new MayflyError("image_invalid", `Cannot use ${what}: the registry sent ${found} for ${wanted}`);
}

/** Runs skopeo with what it needs to know of one registry. */
class Skopeo {
  private constructor(
    readonly options: PullOptions,
    readonly layout: string,
    readonly access: readonly string[],
    readonly policy: readonly string[],
  ) {}

  static async open(options: PullOptions): Promise<Skopeo> {
    const { workplace, reference } = options;
    // Without a policy of the system's skopeo refuses to work; whoever has made one wants it kept.
    const policy = (await exists(SYSTEM_POLICY)) ? [] : ["--insecure-policy"];
    const verify = tlsVerify(options);
    const access = verify === undefined ? [] : [`--tls-verify=${verify}`];
    if (options.certDir !== undefined) access.push(`--cert-dir=${options.certDir}`);
    const authFile = options.credentials === undefined ? options.authFile : `${workplace}/auth.json`;
    if (authFile !== undefined) access.push(`--authfile=${authFile}`);
    if (options.credentials !== undefined) {
      // Arguments can be read by everybody.
      await writeText(`${workplace}/auth.json`, authDocument(reference.domain, options.credentials), 0o600);
    }
    const layout = `${workplace}/layout`;
    await makeDirectory(layout, 0o700);
    return new Skopeo(options, layout, access, policy);
  }

  /** The manifest or index that a reference stands for, byte by byte. */
  async manifest(reference: Reference): Promise<Uint8Array> {
    return this.#ask(reference, []);
  }

  /** The configuration of the image with a digest, byte by byte. */
  async config(reference: Reference): Promise<Uint8Array> {
    return this.#ask(reference, ["--config"]);
  }

  async #ask(reference: Reference, more: readonly string[]): Promise<Uint8Array> {
    const outputPath = `${this.options.workplace}/document`;
    const command = ["skopeo", ...this.policy, "inspect", ...this.access, "--raw", ...more, urlOf(reference)];
    await this.#run(command, reference, { outputPath, deadlineMs: ASK_DEADLINE_MS });
    return readBytes(outputPath);
  }

  /** Copies an image into the layout; blobs that are there stay. */
  async copy(reference: Reference, tooMuch: AbortSignal): Promise<void> {
    const access = this.access.map((option) => option.replace(/^--(tls-verify|cert-dir)/, "--src-$1"));
    const target = ["--dest-oci-accept-uncompressed-layers", `oci:${this.layout}:image`];
    const command = ["skopeo", ...this.policy, "copy", "--quiet", ...access, urlOf(reference), ...target];
    const signals = [tooMuch, ...(this.options.signal === undefined ? [] : [this.options.signal])];
    await this.#run(command, reference, { deadlineMs: COPY_DEADLINE_MS, signal: AbortSignal.any(signals) });
  }

  async #run(
    command: readonly string[],
    reference: Reference,
    options: { outputPath?: string; deadlineMs: number; signal?: AbortSignal },
  ): Promise<void> {
    const { signal } = this.options;
    const stop = signal === undefined ? {} : { signal };
    await runTool(command, { ...stop, ...options, endsWithUs: true, env: { TMPDIR: this.options.workplace } }).catch(
      (error: unknown) => {
        throw registryError(error, reference);
      },
    );
  }
}

function urlOf(reference: Reference): string {
  const { tag: _tag, ...pinned } = reference;
  return `docker://${formatReference(reference.digest === undefined ? reference : pinned)}`;
}

/** Plain HTTP and certificates that nobody vouches for are for this machine's own registries, and for those that its registries.conf names. */
function tlsVerify({ reference, tlsVerify: wanted }: PullOptions): boolean | undefined {
  const own = isLoopback(reference.domain);
  if (wanted === false && !own) {
    throw new MayflyError(
      "invalid_argument",
      `Cannot pull from ${reference.domain} without verified TLS: that is for registries on the loopback address only`,
      { details: { remedy: "--cert-dir DIR with the authority's certificate as DIR/ca.crt" } },
    );
  }
  return wanted ?? (own ? false : undefined);
}

function authDocument(domain: string, { username, password }: { username: string; password: string }): string {
  const auth = Buffer.from(`${username}:${password}`).toString("base64");
  const registry = domain === "docker.io" ? "https://index.docker.io/v1/" : domain;
  return JSON.stringify({ auths: { [registry]: { auth } } });
}
