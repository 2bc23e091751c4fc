/** Import of a root file system: a tarball becomes an image of one layer, with every owner, mode, xattr, hard link and device kept. */

import { randomBytes } from "node:crypto";
import { MayflyError } from "../contract/errors.ts";
import { identityOf, makeDirectory } from "../sys/paths.ts";
import { DEFAULT_LIMIT_BYTES, publishContent } from "./content.ts";
import { imageDirectory, imagesDirectory, openImage, openWorkplace, type StoredImage } from "./store.ts";
import { unpackLayers } from "./unpack.ts";

/** What {@link importRootfs} takes. */
export interface ImportOptions {
  stateDir: string;
  /** Tarball, plain or compressed with gzip, xz or zstd. */
  tarballPath: string;
  /** Most bytes that its files may have in sum; 64 GiB unless told. */
  limitBytes?: number;
  signal?: AbortSignal;
  /** Called as it goes on, with the bytes unpacked so far. */
  onProgress?: (stage: "unpack" | "pack", unpackedBytes: number) => void;
}

/**
 * Imports a tarball into the store. An image that is there already stays as it is.
 *
 * Every header is checked before the unpacker sees it, and the unpacker can write nowhere but to a directory of its own. As in a layer, names
 * that begin with `.wh.` stand for removals, and are not unpacked.
 *
 * @returns the image; its manifest has the digest.
 * @throws MayflyError `file_not_found`; `image_invalid`, naming the entry; `disk_full`; `root_required`; `tool_missing`; `cancelled`.
 * Nothing is left behind in any case.
 */
export async function importRootfs(options: ImportOptions): Promise<StoredImage> {
  const { stateDir, tarballPath, limitBytes = DEFAULT_LIMIT_BYTES, onProgress } = options;
  await checkFile(tarballPath);
  await makeDirectory(imagesDirectory(stateDir));
  await using workplace = await openWorkplace(stateDir, randomBytes(6).toString("hex"));
  const signal = options.signal === undefined ? {} : { signal: options.signal };
  const layer = { path: tarballPath, label: `the tarball ${tarballPath}` };
  const unpacked = await unpackLayers(workplace.path, [layer], {
    limitBytes,
    ...signal,
    onProgress: (_layer, _layers, bytes) => onProgress?.("unpack", bytes),
  });
  const [digest = ""] = unpacked.diffIds;
  if (unpacked.entries === 0) throw invalid(tarballPath, "it holds no files");
  if ((await identityOf(imageDirectory(stateDir, digest))) === undefined) {
    onProgress?.("pack", unpacked.contentBytes);
    await publishContent({ stateDir, workplace: workplace.path, digest, unpacked, ...signal });
  }
  return openImage(stateDir, digest);
}

async function checkFile(path: string): Promise<void> {
  const identity = await identityOf(path);
  if (identity === undefined) {
    throw new MayflyError("file_not_found", `Cannot import ${path}: there is no such file`, { details: { path } });
  }
  if (identity.isFile) return;
  throw invalid(path, `it is ${identity.isDirectory ? "a directory" : "no regular file"}, not a tarball`);
}

function invalid(path: string, why: string): MayflyError {
  return new MayflyError("image_invalid", `Cannot import ${path}: ${why}`, { details: { path } });
}
