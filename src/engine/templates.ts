/**
 * The templates of this host. Those of a size are found by fingerprint, built on demand once however many ask, the least used removed; those
 * of applications are found by name and built when somebody says so.
 */
import type { ApplicationRecipe, BuildTemplateRequest, PoolRequest, Template, VerifyResult } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import type { Shape } from "../contract/machine.ts";
import { fingerprintHash } from "../machine/fingerprint.ts";
import { shapeOf, shapesWith } from "../machine/profile.ts";
import type { Deadline } from "../sys/deadline.ts";
import type { LoadedTemplate, TemplateStore } from "../template/store.ts";
import { buildBaseTemplate } from "./build.ts";
import { Builds } from "./builds.ts";
import type { Events } from "./events.ts";
import { fingerprintFor, type Host } from "./host.ts";
import type { ResolvedImage } from "./images.ts";
import { isMadeBy, nameTaken, recipeOf, requireFitting, sameRecipe } from "./recipes.ts";
import type { TemplateEntry } from "./records.ts";
import { resolveRef } from "./refs.ts";
import { sizesOf } from "./start.ts";
import { describeTemplate } from "./template-document.ts";
import { buildApplicationTemplate } from "./warmed-build.ts";

/** A template of the store with its entry in the records. */
interface Known {
  loaded: LoadedTemplate;
  entry: TemplateEntry;
}

/** All templates of a state directory. */
export class Templates {
  readonly #known = new Map<string, Known>();
  readonly #builds = new Builds();
  /** Applications that are being built, by name: their recipes, and the contents of their images. */
  readonly #underWay = new Map<string, { recipe: ApplicationRecipe; digest: string }>();
  /** Called before a template goes, to end its pool. */
  onRemove: (id: string) => Promise<void> = async () => undefined;
  /** Templates that must stay: running clones and pools are on them. */
  inUse: (id: string) => boolean = () => false;
  /** Names of what lies over a template's memory, and is nothing without it. */
  neededBy: (id: string) => string[] = () => [];
  /** Whether there is a snapshot: templates that were made for one go with it. */
  hasSnapshot: (id: string) => boolean = () => false;
  /** Finds an image of the store. @throws `image_not_found`. */
  resolveImage: (ref: string) => ResolvedImage = (ref) => {
    throw new MayflyError("image_not_found", `There is no image ${JSON.stringify(ref)}`);
  };

  constructor(
    private readonly host: Host,
    private readonly store: TemplateStore,
    private readonly events: Events,
  ) {}

  /** Reads what is there. Damaged templates are reported and left for `verify` and `rm`; they are never cloned. */
  async load(): Promise<void> {
    await this.store.sweep();
    const entries = new Map(this.host.records.templates().map((entry) => [entry.id, entry]));
    for (const id of await this.store.list()) {
      try {
        const loaded = await this.store.load(id);
        this.#known.set(id, { loaded, entry: entries.get(id) ?? { id, name: null, lastUsedAt: null, pool: null } });
      } catch (error) {
        this.events.emit("template.damaged", id, undefined, { reason: error instanceof Error ? error.message : error });
      }
      entries.delete(id);
    }
    // The youngest last: of several that fit it is the one to use.
    const made = ({ loaded }: Known) => loaded.manifest.createdAt;
    const byAge = [...this.#known].sort(([, a], [, b]) => (made(a) < made(b) ? -1 : 1));
    this.#known.clear();
    for (const [id, known] of byAge) this.#known.set(id, known);
    for (const id of entries.keys()) this.host.records.removeTemplate(id);
  }

  /** A template that fits this host in a shape, built first if there is none. */
  async ensure(shape: Shape, onStep: (step: string) => void, deadline: Deadline): Promise<LoadedTemplate> {
    const hash = this.#hash(shape);
    return this.#find(hash)?.loaded ?? this.#build(hash, shape, null, onStep, deadline);
  }

  /** Fitting templates of a size with all devices of a profile, those with the fewest first. */
  serving(shape: Shape): LoadedTemplate[] {
    return shapesWith(shape).flatMap((other) => this.#find(this.#hash(other))?.loaded ?? []);
  }

  /** One of {@link serving}: one that is there, that is being built, or that is built now. */
  async served(shape: Shape, onStep: (step: string) => void, deadline: Deadline): Promise<LoadedTemplate> {
    const isBuilt = (other: Shape) => this.#builds.keys.includes(`base ${this.#hash(other)}`);
    return this.serving(shape)[0] ?? this.ensure(shapesWith(shape).find(isBuilt) ?? shape, onStep, deadline);
  }

  #hash(shape: Shape): string {
    return fingerprintHash(fingerprintFor(this.host, shape));
  }

  /** The template that a name or id means, for a clone. @throws `template_not_found`, `template_incompatible`. */
  cloneable(ref: string): LoadedTemplate {
    const { loaded, entry } = this.#resolve(ref);
    requireFitting(loaded.manifest, entry.name, fingerprintFor(this.host, shapeOf(loaded.manifest.fingerprint)));
    return loaded;
  }

  /** A template that is here and fits this host; undefined otherwise. */
  usable(id: string): LoadedTemplate | undefined {
    const known = this.#known.get(id);
    return known !== undefined && this.#fits(known) ? known.loaded : undefined;
  }

  /** Builds what a request asks for unless it is there, and gives it its name. */
  async build(
    request: BuildTemplateRequest,
    onStep: (step: string) => void,
    deadline: Deadline,
  ): Promise<LoadedTemplate> {
    const named = request.name === undefined ? undefined : this.#named(request.name);
    const recipe = recipeOf(request, named?.loaded.manifest.application);
    if (recipe !== undefined) return this.#buildApplication(request, recipe, onStep, deadline);
    if (named?.loaded.manifest.application !== undefined) throw nameTaken(request.name, named.loaded.manifest);
    const shape = { ...sizesOf(request).shape, profile: request.profile ?? "full" };
    const hash = this.#hash(shape);
    const known = request.force === true ? undefined : this.#find(hash);
    const loaded = known?.loaded ?? (await this.#build(hash, shape, request.name ?? null, onStep, deadline));
    const { name = null, pool = null } = request;
    if (name !== null || pool !== null) this.#change(loaded.id, { ...(name && { name }), ...(pool && { pool }) });
    return loaded;
  }

  #build(
    hash: string,
    shape: Shape,
    name: string | null,
    onStep: (step: string) => void,
    deadline: Deadline,
  ): Promise<LoadedTemplate> {
    const what = `${shape.memoryMiB} MiB, ${shape.vcpus} vCPU, ${shape.profile ?? "full"}`;
    return this.#builds.run(
      `base ${hash}`,
      what,
      async (tell, until) => {
        const loaded = await buildBaseTemplate(this.host, this.store, shape, tell, until);
        this.#add(loaded, name, null);
        await this.#removeExcess(loaded.id);
        return loaded;
      },
      onStep,
      deadline,
    );
  }

  async #buildApplication(
    request: BuildTemplateRequest,
    recipe: ApplicationRecipe,
    onStep: (step: string) => void,
    deadline: Deadline,
  ): Promise<LoadedTemplate> {
    const { name, pool, force } = request;
    if (name === undefined) {
      throw new MayflyError("invalid_argument", `Cannot build a template of image ${recipe.image}: it needs a name`);
    }
    const known = this.#named(name);
    if (known !== undefined && known.loaded.manifest.application === undefined)
      throw nameTaken(name, known.loaded.manifest);
    const image = this.resolveImage(recipe.image);
    const sizes = sizesOf(recipe);
    const application = known?.loaded.manifest.application;
    const isThere = known !== undefined && this.#fits(known) && application && isMadeBy(application, recipe, image);
    if (isThere && force !== true) {
      if (pool !== undefined) this.#change(known.loaded.id, { pool });
      return known.loaded;
    }
    const other = this.#underWay.get(name);
    if (other !== undefined && !sameRecipe(other.recipe, recipe)) {
      throw new MayflyError("resource_in_use", `Cannot build template ${name}: it is being built with other options`);
    }
    const built = this.#builds.run(
      `application ${name}`,
      name,
      async (tell, until) => {
        this.#underWay.set(name, { recipe, digest: image.image.digest });
        try {
          const shape = { ...sizes.shape, profile: "disk" as const };
          const base = await this.served(shape, tell, until);
          const build = { name, recipe, image, sizes };
          const loaded = await buildApplicationTemplate(this.host, this.store, base, build, tell, until);
          await this.#replace(loaded, name, pool);
          return loaded;
        } finally {
          this.#underWay.delete(name);
        }
      },
      onStep,
      deadline,
    );
    return built;
  }

  /** Gives a name to a new template. The one that had it goes, or stays without a name as long as VMs run on it. */
  async #replace(loaded: LoadedTemplate, name: string, pool: PoolRequest | undefined): Promise<void> {
    const old = this.#named(name);
    const kept = pool ?? old?.entry.pool ?? null;
    if (old !== undefined) this.#record(old, { ...old.entry, name: null, pool: null });
    this.#add(loaded, name, kept);
    if (old === undefined) return;
    if (this.inUse(old.loaded.id)) await this.onRemove(old.loaded.id);
    else await this.remove(old.loaded.id, false);
  }

  #add(loaded: LoadedTemplate, name: string | null, pool: PoolRequest | null): void {
    const { manifest } = loaded;
    const { memoryMiB, vcpus, profile } = shapeOf(manifest.fingerprint);
    const entry = { id: loaded.id, name, lastUsedAt: new Date().toISOString(), pool };
    this.#known.set(loaded.id, { loaded, entry });
    this.host.records.putTemplate(entry);
    const attributes = { shape: { memoryMiB, vcpus }, profile, buildMs: manifest.buildMs };
    this.events.emit("template.built", loaded.id, name ?? undefined, attributes);
  }

  /** What a template is to keep prepared, if anybody has said so. */
  poolOf(id: string): PoolRequest | null {
    return this.#known.get(id)?.entry.pool ?? null;
  }

  /** Sets what a template is to keep prepared, from now on. */
  setPool(ref: string, pool: PoolRequest): LoadedTemplate {
    const { loaded } = this.#resolve(ref);
    this.#change(loaded.id, { pool });
    return loaded;
  }

  /** Fitting templates of which somebody has said what they are to keep prepared. */
  pooled(): LoadedTemplate[] {
    return [...this.#known.values()]
      .filter((known) => known.entry.pool !== null && this.#fits(known))
      .map(({ loaded }) => loaded);
  }

  /** Names of the templates, those under way too, whose applications have the contents of an image as their root; an unnamed one's id. */
  onImage(digest: string): string[] {
    const made = [...this.#known.values()]
      .filter(({ loaded }) => loaded.manifest.application?.image.digest === digest)
      .map(({ loaded, entry }) => entry.name ?? loaded.id);
    const underWay = [...this.#underWay].filter(([, build]) => build.digest === digest).map(([name]) => name);
    return [...new Set([...made, ...underWay])];
  }

  /** Uses a template no more that a clone has found damaged; like those found at the start, it is left for `verify` and `rm`. */
  async discardIfCorrupt(template: LoadedTemplate, error: unknown): Promise<void> {
    if (!(error instanceof MayflyError) || error.code !== "template_corrupt" || !this.#known.delete(template.id))
      return;
    this.events.emit("template.damaged", template.id, undefined, { reason: error.message });
    await this.onRemove(template.id);
  }

  /** Ends builds under way: their QEMUs would outlive this process. */
  async close(): Promise<void> {
    await this.#builds.close();
  }

  /** Notes that a clone was made from it. Written at most once a minute: it is on the path of every clone. */
  touch(template: LoadedTemplate): void {
    const known = this.#known.get(template.id);
    if (known === undefined) return;
    const last = known.entry.lastUsedAt === null ? 0 : Date.parse(known.entry.lastUsedAt);
    if (Date.now() - last > 60_000) this.#record(known, { ...known.entry, lastUsedAt: new Date().toISOString() });
  }

  list(): Template[] {
    return [...this.#known.values()].map((known) => this.#describe(known));
  }

  get(ref: string): Template {
    return this.#describe(this.#resolve(ref));
  }

  async verify(ref: string): Promise<VerifyResult> {
    const id = await this.#idOnDisk(ref);
    const problems = await this.store.verify(id);
    return { id, ok: problems.length === 0, problems };
  }

  /** @throws `resource_in_use` while clones run on it, unless forced (they keep their memory mapped). */
  async remove(ref: string, force: boolean): Promise<void> {
    const id = await this.#idOnDisk(ref);
    const refuseIfUsed = () => {
      const needed = this.neededBy(id);
      if (needed.length > 0) {
        throw new MayflyError(
          "resource_in_use",
          `Cannot remove template ${id}: it is the base of ${needed.join(", ")}`,
        );
      }
      if (force || !this.inUse(id)) return;
      throw new MayflyError("resource_in_use", `Cannot remove template ${id}: VMs are running on it`);
    };
    refuseIfUsed();
    await this.onRemove(id);
    // One may have been started from it meanwhile.
    refuseIfUsed();
    this.#known.delete(id);
    this.host.records.removeTemplate(id);
    await this.store.remove(id);
    this.events.emit("template.removed", id);
  }

  /**
   * What nobody needs: templates of a size that do not fit this host (any more), and those of applications that have lost their name to
   * another. One of an application that has its name stays, fitting or not: its recipe is in it.
   */
  stale(): Template[] {
    const isStale = (known: Known) => {
      const { application, madeFor } = known.loaded.manifest;
      if (madeFor !== undefined) return !this.hasSnapshot(madeFor.snapshotId);
      return application === undefined ? !this.#fits(known) : known.entry.name === null;
    };
    const stale = [...this.#known.values()].filter((known) => isStale(known) && !this.inUse(known.loaded.id));
    return stale.map((known) => this.#describe(known));
  }

  /** Takes a template that was published for a snapshot. @returns it. */
  async take(id: string): Promise<LoadedTemplate> {
    const loaded = await this.store.load(id);
    this.#add(loaded, null, null);
    return loaded;
  }

  /** Removes templates that were made for snapshots that are gone, unless VMs or others are on them. When either goes; one call at a time. */
  async removeOrphans(): Promise<void> {
    const isOrphan = ({ loaded: { id, manifest } }: Known) =>
      manifest.madeFor !== undefined && !this.hasSnapshot(manifest.madeFor.snapshotId) && !this.inUse(id);
    for (const { loaded } of [...this.#known.values()].filter(isOrphan)) await this.remove(loaded.id, false);
  }

  /** Removes what nobody needs. @returns their ids. */
  async prune(): Promise<string[]> {
    const stale = this.stale();
    for (const template of stale) await this.remove(template.id, false);
    return stale.map((template) => template.id);
  }

  async #removeExcess(keepId: string): Promise<void> {
    const age = (known: Known) => known.entry.lastUsedAt ?? "";
    const counted = [...this.#known.values()].filter(({ loaded: { manifest } }) => {
      return manifest.application === undefined && manifest.madeFor === undefined;
    });
    const candidates = counted
      .filter(({ loaded, entry }) => loaded.id !== keepId && entry.name === null && !this.inUse(loaded.id))
      .sort((a, b) => (age(a) < age(b) ? -1 : 1));
    const excess = counted.length - this.host.config.templateLimit;
    for (const { loaded } of candidates.slice(0, Math.max(0, excess))) await this.remove(loaded.id, false);
  }

  /** Damaged templates are not known, but may be verified and removed by their id. */
  async #idOnDisk(ref: string): Promise<string> {
    const onDisk = await this.store.list();
    return onDisk.includes(ref) ? ref : this.#resolve(ref).loaded.id;
  }

  /** The youngest template of a size with this fingerprint. */
  #find(hash: string): Known | undefined {
    const fitting = [...this.#known.values()].filter(
      ({ loaded: { manifest } }) =>
        manifest.fingerprintHash === hash && manifest.application === undefined && manifest.madeFor === undefined,
    );
    return fitting.at(-1);
  }

  #fits({ loaded: { manifest } }: Known): boolean {
    return manifest.fingerprintHash === this.#hash(shapeOf(manifest.fingerprint));
  }

  #named(name: string): Known | undefined {
    return [...this.#known.values()].find(({ entry }) => entry.name === name);
  }

  #resolve(ref: string): Known {
    const all = [...this.#known.values()].map((known) => ({ id: known.loaded.id, name: known.entry.name, known }));
    return resolveRef(all, ref, "template").known;
  }

  /** A name is one template's: another that had it has none then. */
  #change(id: string, change: Partial<TemplateEntry>): void {
    const known = this.#known.get(id);
    const holder = change.name == null ? undefined : this.#named(change.name);
    if (holder !== undefined && holder !== known) this.#record(holder, { ...holder.entry, name: null });
    if (known !== undefined) this.#record(known, { ...known.entry, ...change });
  }

  #record(known: Known, entry: TemplateEntry): void {
    known.entry = entry;
    this.host.records.putTemplate(entry);
  }

  #describe({ loaded, entry }: Known): Template {
    return describeTemplate(loaded.manifest, entry, fingerprintFor(this.host, shapeOf(loaded.manifest.fingerprint)));
  }
}
