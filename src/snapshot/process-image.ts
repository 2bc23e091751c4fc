/**
 * The process image of a suspended VM: its QEMU as a file, from which it goes on (docs/adr/0046-resume-from-a-process-image.md). It lies in its snapshot's
 * directory, `process-image/{image,about.json}`, is no part of the snapshot, and a cache: of one boot of the host, one launcher, the files that it has mapped.
 */
import { join } from "node:path";
import { z } from "zod";
import { readBytes } from "../sys/paths.ts";
import { sealJson, unsealJson } from "../sys/sealed-json.ts";
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
 * @param fill writes into the open file, and says whether there is an image.
 * @throws what it throws, `disk_full`; nothing of it is left then.
 */
export async function makeSuspendedImage(
  snapshotDirectory: string,
  about: AboutSuspended,
  fill: (image: number) => Promise<boolean>,
): Promise<void> {
  const directory = join(snapshotDirectory, DIRECTORY);
  const imagePath = join(directory, "image");
  let isMade = false;
  try {
    ensureDirectory(directory, 0o700);
    await newFile(imagePath, "", 0o400);
    using image = openToWrite(imagePath);
    if (!(await fill(image.fd))) return;
    // Last: without it the rest is nothing. None of it is synced, since no later boot takes it.
    await newFile(join(directory, "about.json"), sealJson(about), 0o400);
    isMade = true;
  } finally {
    if (!isMade) removeTree(directory);
  }
}

/** The one of a snapshot, if it has one that fits. */
export async function findSuspendedImage(
  snapshotDirectory: string,
  fits: Pick<AboutSuspended, "launcher" | "bootId">,
): Promise<SuspendedImage | undefined> {
  const directory = join(snapshotDirectory, DIRECTORY);
  try {
    const about = unsealJson(await readBytes(join(directory, "about.json")), directory, {
      schema: About,
      maxBytes: MAX_ABOUT_BYTES,
      corrupt: (origin, problems) => new Error(`${origin}: ${problems.join(", ")}`),
    });
    const image = { ...about, imagePath: join(directory, "image") };
    const { imagePath, basePath, launcher, bootId } = image;
    const isThere = [imagePath, basePath].every((path) => path === null || placedFile(path) !== undefined);
    return isThere && launcher === fits.launcher && bootId === fits.bootId ? image : undefined;
  } catch {
    return undefined; // there is none, or it was never finished
  }
}
