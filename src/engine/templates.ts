/** The templates of this host: found by fingerprint, built on demand once however many ask, the least used removed. */
import type { Template, VerifyResult } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import type { Shape } from "../contract/machine.ts";
import { fingerprintDifferences, fingerprintHash } from "../machine/fingerprint.ts";
import { Deadline } from "../sys/deadline.ts";
import type { LoadedTemplate, TemplateStore } from "../template/store.ts";
import { buildBaseTemplate } from "./build.ts";
import type { Events } from "./events.ts";
import { fingerprintFor, type Host } from "./host.ts";
import type { TemplateEntry } from "./records.ts";
import { resolveRef } from "./refs.ts";

/** A template of the store with its entry in the records. */
interface Known {
  loaded: LoadedTemplate;
  entry: TemplateEntry;
}

/** When it was made, ISO 8601. */
function made({ loaded }: Known): string {
  return loaded.manifest.createdAt;
}

/** A build under way: everyone who asks for the same fingerprint waits for this one. */
interface Build {
  result: Promise<LoadedTemplate>;
  steps: Set<(step: string) => void>;
  step: string;
}

/** All templates of a state directory. */
export class Templates {
  readonly #known = new Map<string, Known>();
  readonly #builds = new Map<string, Build>();
  readonly #closing = new AbortController();
  /** Called before a template goes, to end its pool. */
  onRemove: (id: string) => Promise<void> = async () => undefined;
  /** Templates that must stay: running clones and pools are on them. */
  inUse: (id: string) => boolean = () => false;

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
    const byAge = [...this.#known].sort(([, a], [, b]) => (made(a) < made(b) ? -1 : 1));
    this.#known.clear();
    for (const [id, known] of byAge) this.#known.set(id, known);
    for (const id of entries.keys()) this.host.records.removeTemplate(id);
  }

  /** A template that fits this host in a shape, built first if there is none. */
  async ensure(shape: Shape, onStep: (step: string) => void, deadline: Deadline): Promise<LoadedTemplate> {
    const hash = fingerprintHash(fingerprintFor(this.host, shape));
    const known = this.#find(hash);
    if (known !== undefined) return known.loaded;
    return this.#build(hash, shape, null, onStep, deadline);
  }

  /** The fitting template of a shape, if there is one. */
  existing(shape: Shape): LoadedTemplate | undefined {
    return this.#find(fingerprintHash(fingerprintFor(this.host, shape)))?.loaded;
  }

  /** Builds a template even if a fitting one exists (`force`), and gives it a name. */
  async build(
    shape: Shape,
    options: { name: string | undefined; force: boolean },
    onStep: (step: string) => void,
    deadline: Deadline,
  ): Promise<LoadedTemplate> {
    const hash = fingerprintHash(fingerprintFor(this.host, shape));
    const known = options.force ? undefined : this.#find(hash);
    if (known === undefined) return this.#build(hash, shape, options.name ?? null, onStep, deadline);
    if (options.name !== undefined) this.#record(known, { ...known.entry, name: options.name });
    return known.loaded;
  }

  #build(
    hash: string,
    shape: Shape,
    name: string | null,
    onStep: (step: string) => void,
    deadline: Deadline,
  ): Promise<LoadedTemplate> {
    let build = this.#builds.get(hash);
    const isOurs = build === undefined;
    if (build === undefined) {
      const steps = new Set<(step: string) => void>();
      const tell = (step: string) => {
        if (build !== undefined) build.step = step;
        for (const listener of steps) listener(step);
      };
      const signals = [this.#closing.signal, ...(deadline.signal === undefined ? [] : [deadline.signal])];
      const until = Deadline.after(deadline.remainingMs, AbortSignal.any(signals));
      const result = this.#buildNow(shape, name, tell, until).finally(() => this.#builds.delete(hash));
      build = { result, steps, step: "building a template" };
      this.#builds.set(hash, build);
    }
    onStep(`${build.step} (${shape.memoryMiB} MiB, ${shape.vcpus} vCPU)`);
    build.steps.add(onStep);
    const { result, steps } = build;
    // Our own has our deadline already, and knows better what was not done by then.
    const built = isOurs ? result : deadline.race(result, "the template");
    return built.finally(() => steps.delete(onStep));
  }

  async #buildNow(
    shape: Shape,
    name: string | null,
    onStep: (step: string) => void,
    deadline: Deadline,
  ): Promise<LoadedTemplate> {
    const loaded = await buildBaseTemplate(this.host, this.store, shape, onStep, deadline);
    const known: Known = { loaded, entry: { id: loaded.id, name, lastUsedAt: null, pool: null } };
    this.#known.set(loaded.id, known);
    this.#record(known, { ...known.entry, lastUsedAt: new Date().toISOString() });
    this.events.emit("template.built", loaded.id, name ?? undefined, { shape, buildMs: loaded.manifest.buildMs });
    await this.#removeExcess(loaded.id);
    return loaded;
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
    this.#closing.abort();
    await Promise.allSettled([...this.#builds.values()].map((build) => build.result));
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

  /** Removes templates that do not fit this host (any more) and on which nothing runs. @returns their ids. */
  async prune(): Promise<string[]> {
    const stale = this.list().filter((template) => !template.compatible && !this.inUse(template.id));
    for (const template of stale) await this.remove(template.id, false);
    return stale.map((template) => template.id);
  }

  async #removeExcess(keepId: string): Promise<void> {
    const age = (known: Known) => known.entry.lastUsedAt ?? "";
    const candidates = [...this.#known.values()]
      .filter(({ loaded, entry }) => loaded.id !== keepId && entry.name === null && !this.inUse(loaded.id))
      .sort((a, b) => (age(a) < age(b) ? -1 : 1));
    const excess = this.#known.size - this.host.config.templateLimit;
    for (const { loaded } of candidates.slice(0, Math.max(0, excess))) await this.remove(loaded.id, false);
  }

  /** Damaged templates are not known, but may be verified and removed by their id. */
  async #idOnDisk(ref: string): Promise<string> {
    const onDisk = await this.store.list();
    return onDisk.includes(ref) ? ref : this.#resolve(ref).loaded.id;
  }

  #find(hash: string): Known | undefined {
    const fitting = [...this.#known.values()].filter(({ loaded }) => loaded.manifest.fingerprintHash === hash);
    return fitting.at(-1);
  }

  #resolve(ref: string): Known {
    const all = [...this.#known.values()].map((known) => ({ id: known.loaded.id, name: known.entry.name, known }));
    return resolveRef(all, ref, "template").known;
  }

  #record(known: Known, entry: TemplateEntry): void {
    known.entry = entry;
    this.host.records.putTemplate(entry);
  }

  #describe({ loaded, entry }: Known): Template {
    const { manifest } = loaded;
    const { memoryMiB, vcpus } = manifest.fingerprint;
    const here = fingerprintFor(this.host, { memoryMiB, vcpus });
    const { sizeBytes, allocatedBytes, sha256 } = manifest.memory;
    const differences = fingerprintDifferences(manifest.fingerprint, here);
    return {
      id: loaded.id,
      name: entry.name,
      createdAt: manifest.createdAt,
      lastUsedAt: entry.lastUsedAt,
      shape: { memoryMiB, vcpus },
      fingerprint: { ...manifest.fingerprint },
      fingerprintHash: manifest.fingerprintHash,
      compatible: differences.length === 0,
      differences,
      memory: { sizeBytes, allocatedBytes, sha256 },
      deviceStateBytes: manifest.deviceState.sizeBytes,
      buildMs: manifest.buildMs,
      application: null,
      pool: entry.pool,
    };
  }
}
