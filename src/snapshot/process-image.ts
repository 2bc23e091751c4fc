/**
 * The process image of a suspended VM: its QEMU as a file, from which it goes on (docs/adr/0046-resume-from-a-process-image.md). It lies in its snapshot's
 * directory, `process-image/{image,about.json}`, is no part of the snapshot, and a cache: of one boot of the host, one launcher, the files that it has mapped.
 */
import { join } from "node:path";
import { z } from "zod";
import { readCached, sealJson } from "../sys/sealed-json.ts";
import { ensureDirectory, newFile, openToWrite, placedFile, removeTree } from "../sys/store-files.ts";

const DIRECTORY = "process-image";
const MAX_ABOUT_BYTES = 65_536;

const About = z.strictObject({
  /** What it fits: else it is of no use. */
  launcher: z.string(),
  bootId: z.string(),
  /** The file that its guest's memory is mapped from, under the pages that the image has. */
  memoryPath: z.string(),
  /** The process image that its QEMU has gone on from itself, and shares pages with; null: it was started otherwise. */
  basePath: z.string().nullable(),
});

/** What is to be known of one. */
export type AboutSuspended = z.infer<typeof About>;

/** One that can be gone on from. */
export interface SuspendedImage extends AboutSuspended {
  imagePath: string;
}

/**
 * Makes the one of a snapshot.
 * @param fill writes into the open file.
 * @throws what it throws, `disk_full`; nothing of it is left then.
 */
export async function makeSuspendedImage(
  snapshotDirectory: string,
  about: AboutSuspended,
  fill: (image: number) => Promise<void>,
): Promise<void> {
  const directory = join(snapshotDirectory, DIRECTORY);
  const imagePath = join(directory, "image");
  try {
    ensureDirectory(directory, 0o700);
    await newFile(imagePath, "", 0o400);
    using image = openToWrite(imagePath);
    await fill(image.fd);
    // Last: without it the rest is nothing. None of it is synced, since no later boot takes it.
    await newFile(join(directory, "about.json"), sealJson(about), 0o400);
  } catch (error) {
    removeTree(directory);
    throw error;
  }
}

/** The one of a snapshot, if it has one that fits. */
export async function findSuspendedImage(
  snapshotDirectory: string,
  fits: Pick<AboutSuspended, "launcher" | "bootId">,
): Promise<SuspendedImage | undefined> {
  const directory = join(snapshotDirectory, DIRECTORY);
  const about = await readCached(join(directory, "about.json"), About, MAX_ABOUT_BYTES);
  if (about === undefined) return undefined;
  const image = { ...about, imagePath: join(directory, "image") };
  const { imagePath, basePath, launcher, bootId } = image;
  const isThere = [imagePath, basePath].every((path) => path === null || placedFile(path) !== undefined);
  return isThere && launcher === fits.launcher && bootId === fits.bootId ? image : undefined;
}
