/** The fake engine's images: one sample, which pulling, loading and building come to. */
import type { BuildImageRequest, Image, PullImageRequest } from "../../src/contract/api.ts";
import { MayflyError } from "../../src/contract/errors.ts";
import type { ProgressOptions, PulledImage, ReceivedArchive } from "../../src/engine/interface.ts";
import { sampleImage } from "./samples.ts";

interface Worker {
  work: (options: ProgressOptions) => Promise<void>;
}

/** Pulls the sample; `same` is there already, `none` nowhere. */
export async function pullFake(
  engine: Worker,
  { reference }: PullImageRequest,
  options: ProgressOptions,
): Promise<PulledImage> {
  options.onProgress?.(`asking for ${reference}`);
  await options.deadline.race(engine.work(options), "the fake's work");
  if (reference === "none")
    throw new MayflyError("image_not_found", "Cannot pull none: the registry has no such image");
  return { image: sampleImage, unchanged: reference === "same" };
}

/** Loads the sample; the file `/bad` is no archive. */
export function loadFake(path: string): Image[] {
  if (path === "/bad") throw new MayflyError("image_invalid", "Cannot load /bad: it is no image");
  return [sampleImage];
}

/** Takes what is sent; what it was stands in the path. */
export async function receiveFake(content: AsyncIterable<Uint8Array>): Promise<ReceivedArchive> {
  const parts: Uint8Array[] = [];
  for await (const part of content) parts.push(part);
  return { path: `/${Buffer.concat(parts).toString().trim()}`, async [Symbol.asyncDispose]() {} };
}

/** Prints two lines; the target `broken` fails. */
export async function buildFake(
  engine: Worker,
  request: BuildImageRequest,
  options: ProgressOptions,
): Promise<Image[]> {
  options.onProgress?.("STEP 1/1: FROM scratch");
  options.onOutput?.("STEP 1/1: FROM scratch");
  options.onOutput?.("made it");
  await options.deadline.race(engine.work(options), "the fake's work");
  if (request.target === "broken") {
    throw new MayflyError("build_failed", "Cannot build the image: exit status 3", {
      details: { stderrTail: "exit status 3" },
    });
  }
  return [sampleImage];
}
