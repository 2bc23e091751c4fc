/**
 * A process image of a template: a QEMU with its guest warmed, as a file from which any number of others go on (docs/adr/0045-process-images.md). It lies in
 * the template's directory, `process-image-RANDOM/{image,memory,about.json}`, and is a cache: of one boot of the host, one launcher, one QEMU.
 */
import { randomBytes } from "node:crypto";
import { basename, join } from "node:path";
import { z } from "zod";
import { copySparse } from "../sys/memory-file.ts";
import { publishFile } from "../sys/publish.ts";
import { readCached, sealJson } from "../sys/sealed-json.ts";
import { ensureDirectory, namesBelow, newFile, openToWrite, placedFile, removeTree, seal } from "../sys/store-files.ts";
import { ApplicationSchema } from "./application.ts";
import type { LoadedTemplate } from "./store.ts";

const PREFIX = "process-image-";
const MAX_ABOUT_BYTES = 4 << 20;

const About = z.strictObject({
  /** What it fits: else it is of no use. */
  launcher: z.string(),
  bootId: z.string(),
  /** The main process of an application, as the agent knows it. */
  main: ApplicationSchema.shape.main.nullable(),
  /** Pages of the memory file that are not the template's: first page and number of each run. */
  written: z.array(z.tuple([z.int().min(0), z.int().positive()])),
});

/** What is to be known of an image. */
export type AboutImage = z.infer<typeof About>;

/** A process image that can be gone on from. */
export interface ProcessImage extends Omit<AboutImage, "bootId"> {
  directory: string;
  imagePath: string;
  /** The guest's memory: the template's, with the pages over it that the warmed guest had written. VMs map this file. */
  memoryPath: string;
}

/** Files of an image that is being made, open for writing. */
export interface ImageFiles {
  image: number;
  memory: number;
}

/**
 * Makes one. `fill` writes the files and says what is to be known of them; the memory is a copy of the template's before.
 * @throws what it throws, `disk_full`, `cancelled`; nothing of it is left then.
 */
export async function makeProcessImage(
  { memoryPath: templateMemory }: LoadedTemplate,
  templateDirectory: string,
  gid: number,
  fill: (files: ImageFiles) => Promise<AboutImage>,
  signal?: AbortSignal,
): Promise<ProcessImage> {
  const directory = join(templateDirectory, `${PREFIX}${randomBytes(6).toString("hex")}`);
  const [imagePath, memoryPath] = [join(directory, "image"), join(directory, "memory")];
  try {
    ensureDirectory(directory, 0o711);
    await newFile(memoryPath, "", 0o600);
    await copySparse(templateMemory, memoryPath, signal);
    await newFile(imagePath, "", 0o400);
    using image = openToWrite(imagePath);
    using memory = openToWrite(memoryPath);
    const about = await fill({ image: image.fd, memory: memory.fd });
    await seal(memoryPath, gid, 0o440);
    // Last: without it the rest is nothing. None of it is synced, since no later boot takes it.
    await publishFile(join(directory, "about.json"), sealJson(about), 0o400);
    const { bootId: _fits, ...known } = about;
    return { ...known, directory, imagePath, memoryPath };
  } catch (error) {
    removeTree(directory);
    throw error;
  }
}

/**
 * The image of a template that fits, and has not been found to be of no use since. All others are removed, but those whose memory is still in use.
 * @param fits the launcher's path, and the boot of the host.
 */
export async function findProcessImage(
  templateDirectory: string,
  fits: Pick<AboutImage, "launcher" | "bootId">,
  isInUse: (memoryPath: string) => boolean,
): Promise<ProcessImage | undefined> {
  let found: ProcessImage | undefined;
  for (const name of namesBelow(templateDirectory).filter((one) => one.startsWith(PREFIX))) {
    const image = await readProcessImage(join(templateDirectory, name));
    const isThere = image !== undefined && placedFile(image.imagePath) !== undefined;
    const doesFit = isThere && image.launcher === fits.launcher && image.bootId === fits.bootId;
    if (found === undefined && doesFit) found = image;
    else if (!isInUse(join(templateDirectory, name, "memory"))) removeTree(join(templateDirectory, name));
  }
  return found;
}

/** Reads what is known of one. @returns undefined: it was never finished, or is damaged. */
async function readProcessImage(directory: string): Promise<(ProcessImage & AboutImage) | undefined> {
  const about = await readCached(join(directory, "about.json"), About, MAX_ABOUT_BYTES);
  return about && { ...about, directory, imagePath: join(directory, "image"), memoryPath: join(directory, "memory") };
}

/** The process image that a VM has gone on from, by the memory file that it has mapped. @returns undefined: from none. */
export function imageOfMemory(memoryPath: string): string | undefined {
  const directory = join(memoryPath, "..");
  return basename(directory).startsWith(PREFIX) ? join(directory, "image") : undefined;
}

/**
 * Pages in which a memory file that a VM has mapped differs from its template's: none, unless it is an image's.
 * @returns first page and number of each run.
 * @throws an Error if it is an image's of which nothing is known any more.
 */
export async function pagesOverTemplate(memoryPath: string): Promise<AboutImage["written"]> {
  if (imageOfMemory(memoryPath) === undefined) return [];
  const image = await readProcessImage(join(memoryPath, ".."));
  if (image === undefined) throw new Error(`Cannot tell which pages of ${memoryPath} are the template's`);
  return image.written;
}
