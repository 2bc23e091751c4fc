/** For tests: images of a state directory without an engine around them. */
import { mkdirSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import type { Event, Image } from "../../src/contract/api.ts";
import { MayflyError } from "../../src/contract/errors.ts";
import { Events } from "../../src/engine/events.ts";
import { ImageOperations } from "../../src/engine/image-operations.ts";
import { Images } from "../../src/engine/images.ts";
import type { ProgressOptions } from "../../src/engine/interface.ts";
import { Records } from "../../src/engine/records.ts";
import { Deadline } from "../../src/sys/deadline.ts";
import { temporaryDirectory, treeBelow } from "../../src/sys/paths.ts";
import { runTool } from "../../src/sys/tool.ts";
import { type HandMadeLayer, writeLayout } from "./oci-layout.ts";

/** Images, their operations, and a directory for the test's own files. */
export interface TestImages extends AsyncDisposable {
  images: Images;
  operations: ImageOperations;
  stateDir: string;
  /** Beside the state directory. */
  work: string;
  events: Event[];
  /** Every step that operations have told. */
  steps: string[];
  options(signal?: AbortSignal): ProgressOptions;
  /** Opens the same directory again, as the next daemon does. */
  reopen(): Promise<void>;
  /** Whatever lies in the store: contents as `sha256/HEX`, blobs as `blobs/sha256/HEX`. */
  stored(): Promise<string[]>;
  /** Uses the root file system of an image, mounted read-only. */
  mounted<T>(image: Image, use: (directory: string) => Promise<T>): Promise<T>;
}

/** Opens images in a directory of their own, or in `work`. */
export async function openImages(given?: string): Promise<TestImages> {
  const work = given ?? (await temporaryDirectory("mayfly-images"));
  const stateDir = join(work, "state");
  mkdirSync(stateDir, { recursive: true, mode: 0o711 });
  const [steps, told]: [string[], Event[]] = [[], []];
  let records = new Records(join(stateDir, "mayfly.db"));
  const start = async () => {
    const events = new Events();
    events.subscribe((event) => told.push(event));
    const host = { config: { stateDir }, records };
    const images = new Images(host, events);
    await images.load();
    await images.collect();
    return { images, operations: new ImageOperations(host, images, events) };
  };
  const store: TestImages = {
    ...(await start()),
    ...{ stateDir, work, steps, events: told },
    options: (signal) => ({ deadline: Deadline.after(60_000, signal), onProgress: (step) => void steps.push(step) }),
    async reopen() {
      records[Symbol.dispose]();
      records = new Records(join(stateDir, "mayfly.db"));
      Object.assign(store, await start());
    },
    stored: async () =>
      (await treeBelow(join(stateDir, "images"))).filter((path) => /^(blobs\/)?sha256\/[^/]+$/.test(path)),
    async mounted(image, use) {
      const directory = join(work, "mounted");
      mkdirSync(directory, { recursive: true });
      await runTool(["mount", "-t", "erofs", "-o", "loop,ro", store.images.resolve(image.id).rootfs.path, directory]);
      try {
        return await use(directory);
      } finally {
        await runTool(["umount", directory]);
      }
    },
    async [Symbol.asyncDispose]() {
      records[Symbol.dispose]();
      if (given === undefined) await rm(work, { recursive: true, force: true });
    },
  };
  return store;
}

/** Loads layers as the image `x:1`, from a layout in `work/layout`. */
export async function loadLayers(
  store: TestImages,
  layers: readonly HandMadeLayer[],
  compression?: "gzip" | "zstd",
): Promise<Image> {
  const packing = compression === undefined ? {} : { compression };
  await writeLayout(`${store.work}/layout`, [{ layers, name: "x:1", ...packing }]);
  const [image] = await store.operations.load({ path: `${store.work}/layout` }, store.options());
  if (image === undefined) throw new Error("nothing was loaded");
  return image;
}

/** What an action is refused with. */
export async function refusal(action: Promise<unknown>): Promise<MayflyError> {
  const error = await action.then(
    () => new Error("it was not refused"),
    (reason: unknown) => reason,
  );
  if (error instanceof MayflyError) return error;
  throw error;
}
