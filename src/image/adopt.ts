/**
 * Images that come from another host as they are there. Memory of a VM refers to what lies where in its root's file system, so one of the same
 * layers is not enough: it has to be the same to the byte.
 */
import { MayflyError } from "../contract/errors.ts";
import { publishDirectory, sha256File } from "../sys/publish.ts";
import { newFile, setMode } from "../sys/store-files.ts";
import { detectRootfs } from "./rootfs.ts";
import { type ImageManifest, imageDirectory, openImage, parseManifest, type StoredImage } from "./store.ts";

/** What is kept with an image's file system, and what writes that. */
export interface ForeignImage {
  passwd: Uint8Array;
  group: Uint8Array;
  /** Writes the file system into an existing file. */
  fillRootfs: (path: string, sizeBytes: number) => Promise<void>;
}

/** Reads a manifest of the store as another host has it. @throws `image_invalid`. */
export function decodeImageManifest(bytes: Uint8Array): ImageManifest {
  const manifest = parseManifest(Buffer.from(bytes).toString());
  if (manifest !== undefined && /^[0-9a-f]{64}$/.test(manifest.sha256)) return manifest;
  throw new MayflyError("image_invalid", "Cannot take in an image: its manifest is damaged");
}

/** The image of this store with exactly that file system; undefined: there is none. @throws `store_corrupt`. */
export async function sameImage(stateDir: string, wanted: ImageManifest): Promise<StoredImage | undefined> {
  for (const digest of [wanted.digest, ownDigest(wanted)]) {
    const here = await openImage(stateDir, digest).catch((error: unknown) => {
      if (error instanceof MayflyError && error.code === "image_not_found") return undefined;
      throw error;
    });
    if (here?.manifest.sha256 === wanted.sha256) return here;
  }
  return undefined;
}

/**
 * Puts an image into the store. What layers it is of cannot be checked, so it goes by the digest of its file system: whoever pulls those layers
 * does not get this instead.
 * @throws `image_invalid` if it is not what its manifest says, `disk_full`; nothing is left then.
 */
export async function adoptImage(stateDir: string, wanted: ImageManifest, files: ForeignImage): Promise<StoredImage> {
  const digest = ownDigest(wanted);
  await publishDirectory(imageDirectory(stateDir, digest), async (directory) => {
    const rootfs = `${directory}/rootfs.erofs`;
    await newFile(rootfs, "", 0o600);
    await files.fillRootfs(rootfs, wanted.sizeBytes);
    const sha256 = await sha256File(rootfs);
    if (sha256 !== wanted.sha256) {
      const what = `Cannot take in image ${wanted.digest}: its file system has checksum ${sha256}`;
      throw new MayflyError("image_invalid", `${what}, its manifest requires ${wanted.sha256}`);
    }
    await detectRootfs(rootfs);
    // Each VM's QEMU reads it, with a uid of its own.
    await setMode(rootfs, 0o444);
    await newFile(`${directory}/passwd`, files.passwd, 0o600);
    await newFile(`${directory}/group`, files.group, 0o600);
    const manifest: ImageManifest = { ...wanted, digest, createdAt: new Date().toISOString() };
    await newFile(`${directory}/manifest.json`, `${JSON.stringify(manifest, null, 2)}\n`, 0o644);
  });
  return openImage(stateDir, digest);
}

function ownDigest({ sha256 }: ImageManifest): string {
  return `sha256:${sha256}`;
}
