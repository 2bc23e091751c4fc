/** Makes process images of templates whose pools keep no parent: one is made for that, and ends. One at a time, in the background. */
import type { LoadedTemplate } from "../template/store.ts";
import type { Host } from "./host.ts";
import { Pool } from "./pool.ts";
import type { ProcessImages } from "./process-images.ts";

/** Makes what clones go on from for which nothing is prepared, for templates that such clones were made of. */
export class ImageMaker {
  #last: Promise<void> = Promise.resolve();
  #making: Pool | undefined;
  #isClosed = false;

  /** @param poolOf a template's pool, which makes its image itself if it keeps a parent, and has use for it in any case. */
  constructor(
    private readonly host: Host,
    private readonly images: ProcessImages,
    private readonly poolOf: (template: LoadedTemplate) => Pool,
  ) {}

  /** Makes an image, unless there is one, or is to be none. Resolves when that is done, or has failed: clones are made without then. */
  make(template: LoadedTemplate): Promise<void> {
    if (this.images.has(template) || this.poolOf(template).targets.parent) return Promise.resolve();
    this.#last = this.#last.then(() => this.#make(template));
    return this.#last;
  }

  async #make(template: LoadedTemplate): Promise<void> {
    if (this.#isClosed || this.images.has(template)) return;
    const pool = new Pool(this.host, template, { blocked: 0, warm: 0, parent: true }, this.images);
    this.#making = pool;
    try {
      pool.refill();
      await pool.settled();
    } finally {
      this.#making = undefined;
      await pool.close();
    }
    if (this.images.isThere(template)) this.poolOf(template).refill();
  }

  /** Ends what is being made of a template. */
  async cancel(templateId: string): Promise<void> {
    if (this.#making?.template.id === templateId) await this.#making.close();
  }

  /** Ends all. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#making?.close();
    await this.#last;
  }
}
