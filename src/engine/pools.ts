/** The pools of all templates: the default shape's and those that somebody has asked for are filled from the start. */
import type { SystemInfo } from "../contract/api.ts";
import type { DeviceProfile, Shape } from "../contract/machine.ts";
import { fingerprintHash } from "../machine/fingerprint.ts";
import { shapeOf } from "../machine/profile.ts";
import { Deadline } from "../sys/deadline.ts";
import { availableMemoryBytes } from "../sys/host.ts";
import type { LoadedTemplate } from "../template/store.ts";
import { DEFAULT_MEMORY_BYTES, LIMITS_MS, type PoolSizes } from "./config.ts";
import type { Events } from "./events.ts";
import { fingerprintFor, type Host } from "./host.ts";
import { Pool, type PoolImages, refillFailure } from "./pool.ts";
import type { Templates } from "./templates.ts";

/** How often memory is looked at while prepared VMs hold some of it. */
const PRESSURE_CHECK_MS = 2_000;
const NO_POOL: PoolSizes = { blocked: 0, warm: 0 };

/** The shape of VMs that ask for nothing. */
export const DEFAULT_SHAPE: Required<Shape> = {
  ...{ memoryMiB: DEFAULT_MEMORY_BYTES / 2 ** 20, vcpus: 1 },
  // Whatever a VM asks for, a prepared one is there sooner than one without the devices that it does not need.
  profile: "full",
};

function hasAny({ sizes: { blocked, standing, warm, parent } }: Pool): boolean {
  return blocked + standing + warm > 0 || parent;
}

/** Pools by template. */
export class Pools {
  readonly #pools = new Map<string, Pool>();
  #timer: ReturnType<typeof setInterval> | undefined;
  #relieving = false;
  /** Has VMs give memory back when there is nothing prepared that could go. @returns whether it is worth looking again. */
  onPressure: () => Promise<boolean> = async () => false;
  /** Called with each smaller template that is there beside the default one's pool. */
  onSmaller: (template: LoadedTemplate) => Promise<void> = async () => undefined;

  constructor(
    private readonly host: Host,
    private readonly templates: Templates,
    private readonly events: Events,
    private readonly images: PoolImages,
  ) {}

  /**
   * Fills the pools that somebody has asked for and the default shape's, whose template is built first if need be, and watches the host's
   * memory.
   */
  start(): void {
    this.#timer = setInterval(() => void this.#relieve(), PRESSURE_CHECK_MS);
    this.#timer.unref();
    this.#fill();
  }

  /** Ends the pools of templates that do not fit this host any more, and fills those that it has now. */
  async renew(): Promise<void> {
    const old = [...this.#pools.values()].filter(({ template }) => !this.#fits(template));
    await Promise.all(old.map(({ template }) => this.close(template.id)));
    this.#fill();
  }

  #fits({ manifest }: LoadedTemplate): boolean {
    return manifest.fingerprintHash === fingerprintHash(fingerprintFor(this.host, shapeOf(manifest.fingerprint)));
  }

  #fill(): void {
    for (const template of this.templates.pooled()) this.of(template).refill();
    const { blocked, warm, parent = false } = this.host.config.pool;
    if (blocked + warm === 0 && !parent) return;
    this.#fillDefault().catch((error: unknown) =>
      this.events.emit("pool.refill_failed", "default", undefined, { reason: refillFailure(error) }),
    );
  }

  /** The default pool first; then, once and for all, smaller templates of that size: for VMs that find nothing prepared. */
  async #fillDefault(): Promise<void> {
    const ensure = (profile: DeviceProfile) =>
      this.templates.ensure({ ...DEFAULT_SHAPE, profile }, () => undefined, Deadline.after(LIMITS_MS.boot * 2));
    const pool = this.of(await ensure(DEFAULT_SHAPE.profile));
    pool.refill();
    await pool.settled();
    for (const profile of this.host.config.profiles) await this.onSmaller(await ensure(profile));
  }

  /** Whether a template's pool has something prepared. */
  hasPrepared(templateId: string): boolean {
    const pool = this.#pools.get(templateId);
    return pool !== undefined && hasAny(pool);
  }

  /** The pool of a template, made at the first call. */
  of(template: LoadedTemplate): Pool {
    const known = this.#pools.get(template.id);
    if (known !== undefined) return known;
    const { application, fingerprint, madeFor } = template.manifest;
    const { memoryMiB, vcpus, profile } = shapeOf(fingerprint);
    const isDefaultSize = memoryMiB === DEFAULT_SHAPE.memoryMiB && vcpus === DEFAULT_SHAPE.vcpus;
    const isDefault = madeFor === undefined && isDefaultSize && profile === DEFAULT_SHAPE.profile;
    const configured = isDefault && application === undefined ? this.host.config.pool : NO_POOL;
    const pool = new Pool(this.host, template, this.templates.poolOf(template.id) ?? configured, this.images);
    pool.onChange = (change) => {
      const attributes = change.type === "refilled" ? { ...pool.sizes } : { reason: refillFailure(change.error) };
      this.events.emit(`pool.${change.type}`, template.id, undefined, attributes);
    };
    this.#pools.set(template.id, pool);
    return pool;
  }

  /** Has a template's pool keep what is recorded for it by now. */
  async resize(template: LoadedTemplate): Promise<void> {
    const wanted = this.templates.poolOf(template.id);
    const pool = this.of(template);
    if (wanted === null) return;
    await pool.resize(wanted);
  }

  /** Ends the pool of a template. */
  async close(templateId: string): Promise<void> {
    const pool = this.#pools.get(templateId);
    this.#pools.delete(templateId);
    await pool?.close();
  }

  async closeAll(): Promise<void> {
    clearInterval(this.#timer);
    await Promise.all([...this.#pools.keys()].map((id) => this.close(id)));
  }

  describe(): SystemInfo["pools"] {
    return [...this.#pools.values()].map((pool) => {
      const { memoryMiB, vcpus, profile } = shapeOf(pool.template.manifest.fingerprint);
      return {
        templateId: pool.template.id,
        shape: { memoryMiB, vcpus },
        profile,
        ...pool.sizes,
        target: pool.targets,
      };
    });
  }

  /** Gives the memory of prepared VMs back; they are made again when there is more. @returns whether there were any. */
  async drain(): Promise<boolean> {
    const filled = [...this.#pools.values()].filter(hasAny);
    for (const pool of filled) {
      await pool.drain();
      this.events.emit("pool.drained", pool.template.id, undefined, { reason: "memory pressure" });
    }
    return filled.length > 0;
  }

  /** The host may run out of memory without anybody starting anything. */
  async #relieve(): Promise<void> {
    if (this.#relieving) return;
    this.#relieving = true;
    try {
      while (availableMemoryBytes() < this.host.config.memoryReserveBytes) {
        if (!(await this.drain()) && !(await this.onPressure())) break;
      }
    } finally {
      this.#relieving = false;
    }
  }
}
