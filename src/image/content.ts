/** From layers to the one file that VMs run on: made once for each chain of layers, whoever asks for it and how often. */

import { createHash, randomBytes } from "node:crypto";
import { MayflyError } from "../contract/errors.ts";
import { waitForLock } from "../sys/lock.ts";
import { identityOf, makeDirectory, writeText } from "../sys/paths.ts";
import { publishTree, sha256File } from "../sys/publish.ts";
import { setMode } from "../sys/store-files.ts";
import { runTool } from "../sys/tool.ts";
import { readBelow } from "./inside.ts";
import { detectRootfs } from "./rootfs.ts";
import {
  contentLockPath,
  type ImageManifest,
  imageDirectory,
  imagesDirectory,
  openImage,
  openWorkplace,
  type StoredImage,
} from "./store.ts";
import { type LayerFile, type Unpacked, unpackLayers } from "./unpack.ts";

/** What is being done: reading a layer (from 1), making the file system, or waiting for somebody who makes the same. */
export type ContentProgress =
  | { stage: "unpack"; layer: number; layers: number; bytes: number }
  | { stage: "pack"; bytes: number }
  | { stage: "wait" };

/** What {@link ensureContent} takes. */
export interface ContentOptions {
  stateDir: string;
  /** From the lowest to the topmost, each with its diff id. */
  layers: readonly (LayerFile & { diffId: string })[];
  /** Most bytes that its files may have in sum; {@link DEFAULT_LIMIT_BYTES} unless told. */
  limitBytes?: number;
  signal?: AbortSignal;
  onProgress?: (progress: ContentProgress) => void;
}

/** Most bytes that an image's files may have in sum. */
export const DEFAULT_LIMIT_BYTES = 64 * 2 ** 30;
const DEADLINE_MS = 3_600_000;
/** Longest `/etc/passwd` or `/etc/group` that is taken. */
const MAX_ACCOUNTS_BYTES = 2 ** 20;

/** Digest of the contents that layers make together (OCI image-spec, "Layer ChainID"); of one layer it is its diff id. */
export function chainId(diffIds: readonly string[]): string {
  const [first, ...others] = diffIds;
  if (first === undefined) return `sha256:${createHash("sha256").digest("hex")}`;
  return others.reduce((chain, diffId) => {
    return `sha256:${createHash("sha256").update(`${chain} ${diffId}`).digest("hex")}`;
  }, first);
}

/**
 * Makes the contents of layers, unless the store has them. Of several who ask for the same at once, in whatever process, one makes it and the
 * others wait and find it.
 *
 * @throws MayflyError as {@link unpackLayers}, with nothing left behind.
 */
export async function ensureContent(options: ContentOptions): Promise<StoredImage & { made: boolean }> {
  const { stateDir, layers, signal, onProgress } = options;
  const digest = chainId(layers.map(({ diffId }) => diffId));
  const present = await existing(stateDir, digest);
  if (present !== undefined) return { ...present, made: false };
  const wait = { deadlineMs: DEADLINE_MS, removeAfter: true, onWait: () => onProgress?.({ stage: "wait" }) };
  using _lock = await waitForLock(contentLockPath(stateDir, digest), {
    ...wait,
    ...(signal === undefined ? {} : { signal }),
  });
  const meanwhile = await existing(stateDir, digest);
  if (meanwhile !== undefined) return { ...meanwhile, made: false };
  await makeDirectory(imagesDirectory(stateDir));
  await using workplace = await openWorkplace(stateDir, randomBytes(6).toString("hex"));
  const unpacked = await unpackLayers(workplace.path, layers, {
    limitBytes: options.limitBytes ?? DEFAULT_LIMIT_BYTES,
    onProgress: (layer, count, bytes) => onProgress?.({ stage: "unpack", layer, layers: count, bytes }),
    ...(signal === undefined ? {} : { signal }),
  });
  onProgress?.({ stage: "pack", bytes: unpacked.contentBytes });
  await publishContent({
    stateDir,
    workplace: workplace.path,
    digest,
    unpacked,
    ...(signal === undefined ? {} : { signal }),
  });
  return { ...(await openImage(stateDir, digest)), made: true };
}

/** What {@link publishContent} takes: what was unpacked into `workplace/tree`, and the digest that it gets. */
export interface PublishOptions {
  stateDir: string;
  workplace: string;
  digest: string;
  unpacked: Unpacked;
  signal?: AbortSignal;
}

/** Makes a file system of an unpacked tree and puts it into the store; if it is there already, that one stays. @throws `disk_full`, `image_invalid`. */
export async function publishContent({ stateDir, workplace, digest, unpacked, signal }: PublishOptions): Promise<void> {
  const directory = imageDirectory(stateDir, digest);
  if ((await identityOf(directory)) !== undefined) return;
  const tree = `${workplace}/tree`;
  const finished = `${workplace}/image`;
  const image = `${finished}/rootfs.erofs`;
  await makeDirectory(finished);
  for (const name of ["passwd", "group"] as const) {
    const bytes = await readBelow(tree, `etc/${name}`, MAX_ACCOUNTS_BYTES);
    if (bytes === "too long") {
      throw new MayflyError(
        "image_invalid",
        `Cannot use the image: its /etc/${name} has more than ${MAX_ACCOUNTS_BYTES} bytes`,
      );
    }
    if (bytes !== undefined) await writeText(`${finished}/${name}`, bytes, 0o600);
  }
  await makeErofs(tree, image, signal);
  // Each VM's QEMU reads it, with a uid of its own.
  await setMode(image, 0o444);
  const { sizeBytes } = await detectRootfs(image);
  const manifest: ImageManifest = {
    ...{ magic: "mayfly-image", version: 1, digest },
    ...{ entries: unpacked.entries, contentBytes: unpacked.contentBytes },
    ...{ fstype: "erofs", sizeBytes, sha256: await sha256File(image), createdAt: new Date().toISOString() },
  };
  await writeText(`${finished}/manifest.json`, `${JSON.stringify(manifest, null, 2)}\n`);
  await publishTree(finished, directory);
}

async function existing(stateDir: string, digest: string): Promise<StoredImage | undefined> {
  return openImage(stateDir, digest).catch((error: unknown) => {
    if (error instanceof MayflyError && error.code === "image_not_found") return undefined;
    throw error;
  });
}

/**
 * mkfs.erofs(1): LZ4, which every kernel with erofs reads (lz4hc saves a tenth, and takes 20 times as long on data that does not compress);
 * times as they are, not the time of building.
 */
async function makeErofs(tree: string, image: string, signal: AbortSignal | undefined): Promise<void> {
  const command = ["mkfs.erofs", "--quiet", "-zlz4", "--preserve-mtime", image, tree];
  try {
    await runTool(command, { deadlineMs: DEADLINE_MS, endsWithUs: true, ...(signal === undefined ? {} : { signal }) });
  } catch (error) {
    const tail = error instanceof MayflyError ? (error.details.stderrTail ?? "") : "";
    if (!/No space left|write error|-28\b/i.test(tail)) throw error;
    throw new MayflyError("disk_full", `Cannot write ${image}: no space left on its file system`, {
      details: { path: image, stderrTail: tail },
      cause: error,
    });
  }
}
