/**
 * Process images of templates: a clone for which nothing is prepared goes on from one, instead of having a QEMU load its state and translate its guest's
 * code anew (docs/adr/0045-process-images.md). Under emulation only.
 */
import { MayflyError } from "../contract/errors.ts";
import type { Deadline } from "../sys/deadline.ts";
import { RUN_WORDS } from "../sys/page-set.ts";
import { copiedPages } from "../sys/pagemap.ts";
import { bootId } from "../sys/process.ts";
import { guestMapping } from "../sys/process-memory.ts";
import { placedFile, removeTree } from "../sys/store-files.ts";
import { findProcessImage, type ImageFiles, makeProcessImage, type ProcessImage } from "../template/process-image.ts";
import type { LoadedTemplate } from "../template/store.ts";
import { type ImageClone, letRun, openAgent, spawnFromImage } from "./clone.ts";
import { type Host, tenantGid } from "./host.ts";
import type { ParentVm } from "./parent-vm.ts";
import { ResumedMain } from "./resumed-main.ts";
import { templateDisks } from "./warmed.ts";

/** How often an image of a template is made: once more after one that did not fit any longer. */
const MAX_TRIES = 2;

/** Exit codes of the launcher when it has not become the process of an image. */
const REFUSED = [125, 126];

/** What an image has to fit on this host. */
export function imagesFit({ config }: Host): { launcher: string; bootId: string } {
  return { launcher: config.artifacts.launcher.path, bootId: bootId() };
}

/** Whether images are made here, and gone on from. */
export function hasProcessImages({ accelerator, config }: Host): boolean {
  const { pool, processImages } = config;
  const { blocked, warm, parent = processImages ?? blocked + warm > 0 } = pool;
  return accelerator === "tcg" && parent;
}

/** The images of all templates. */
export class ProcessImages {
  readonly #images = new Map<string, ProcessImage>();
  /** By template: how often one was made, or could not be. */
  readonly #tries = new Map<string, number>();

  /** @param directoryOf a template's. @param isInUse whether a VM has mapped a memory file. */
  constructor(
    private readonly host: Host,
    private readonly directoryOf: (templateId: string) => string,
    private readonly isInUse: (memoryPath: string) => boolean,
  ) {}

  /** Finds those that are there, and removes what is of no use any more. */
  async load(templateIds: readonly string[]): Promise<void> {
    for (const id of templateIds) {
      const image = await findProcessImage(this.directoryOf(id), imagesFit(this.host), this.isInUse);
      if (image !== undefined && hasProcessImages(this.host)) this.#images.set(id, image);
    }
  }

  /** Whether a template has one, or is not to have any. */
  has({ id }: LoadedTemplate): boolean {
    return !hasProcessImages(this.host) || this.#of(id) !== undefined || (this.#tries.get(id) ?? 0) >= MAX_TRIES;
  }

  /** That of a template which the launcher in force has written. */
  #of(templateId: string): ProcessImage | undefined {
    const image = this.#images.get(templateId);
    return image?.launcher === this.host.config.artifacts.launcher.path ? image : undefined;
  }

  /** Whether a template has one. */
  isThere({ id }: LoadedTemplate): boolean {
    return this.#of(id) !== undefined;
  }

  /** Forgets all of a template that is being removed; its directory goes with it. */
  forget(templateId: string): void {
    this.#images.delete(templateId);
    this.#tries.delete(templateId);
  }

  /**
   * Makes the image of a template, unless there is one.
   * @param parent one that was warmed, and has not gone on from an image itself.
   * @throws what the launcher and the disk do wrong; the parent may have ended then.
   */
  async make(parent: ParentVm, deadline: Deadline): Promise<void> {
    const { template } = parent;
    if (this.has(template)) return;
    this.#tries.set(template.id, (this.#tries.get(template.id) ?? 0) + 1);
    const { start, lengthBytes } = guestMapping(parent.qemu.pid, template.memoryPath);
    const written = runsOf(copiedPages(parent.qemu.pid, start, lengthBytes));
    const fill = async (files: ImageFiles) => {
      await deadline.race(parent.writeImage(files), "a process image");
      return { ...imagesFit(this.host), main: parent.main ?? null, written };
    };
    const directory = this.directoryOf(template.id);
    const image = await makeProcessImage(template, directory, tenantGid(this.host), fill, deadline.signal);
    // Its template may have been removed meanwhile.
    if (this.#tries.has(template.id)) this.#images.set(template.id, image);
    else removeTree(image.directory);
  }

  /**
   * Spawns a QEMU that goes on from a template's image; it is like a warm clone then. @returns undefined: there is none.
   * @param merge whether its memory may be merged with that of others.
   * @throws `qemu_spawn_failed`, `limit_reached`; nothing is left then.
   */
  spawn(template: LoadedTemplate, merge = false): ImageClone | undefined {
    const image = this.#of(template.id);
    if (image === undefined) return undefined;
    const { id } = template;
    if (placedFile(image.imagePath) === undefined) {
      this.#refused(id, image);
      return undefined;
    }
    const qemu = spawnFromImage(this.host, template, image, templateDisks(this.host.config.stateDir, template), merge);
    qemu.exited.then(({ exitCode }) => {
      if (exitCode !== null && REFUSED.includes(exitCode)) this.#refused(id, image);
    });
    const main = image.main ?? undefined;
    const connect = (until: Deadline) => {
      const channel = openAgent(qemu, until);
      return { ...channel, main: main && new ResumedMain(channel.agent, main) };
    };
    const resume = (until: Deadline) => letRun(qemu, until);
    return { qemu, template, memoryPath: image.memoryPath, root: undefined, main, connect, resume };
  }

  /**
   * One that the launcher cannot go on from is of no use to the next either. Its memory stays until the daemon is started again: what has gone on from it
   * before has that.
   */
  #refused(templateId: string, image: ProcessImage): void {
    if (this.#images.get(templateId) === image) this.#images.delete(templateId);
    removeTree(image.imagePath);
  }
}

function runsOf(words: Uint32Array): [number, number][] {
  const runs: [number, number][] = [];
  for (let at = 0; at < words.length; at += RUN_WORDS) runs.push([words[at] ?? 0, words[at + 1] ?? 0]);
  return runs;
}

/** Whether a start failed since its image could not be gone on from: it is to be made without. */
export function isRefusedImage(error: unknown): boolean {
  if (!(error instanceof MayflyError) || error.code !== "qemu_exited") return false;
  const { exitCode } = error.details;
  return typeof exitCode === "number" && REFUSED.includes(exitCode);
}
