/** What a request for a VM means: in the base guest, in a container on an image, or as a clone of a template with an application. */
import type { ContainerSpec, ExecSpec } from "../agent/requests.ts";
import type { CreateVmRequest, Image } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import type { DeviceProfile } from "../contract/machine.ts";
import type { ReadOnlyDisk } from "../machine/devices/disk.ts";
import { profileFor, profilesWith, shapeOf } from "../machine/profile.ts";
import type { ApplicationPart } from "../template/application.ts";
import type { LoadedTemplate } from "../template/store.ts";
import { type ContainerBase, type ContainerPlan, mainSpec, planContainer } from "./container-plan.ts";
import type { EngineParts } from "./engine.ts";
import { baseSpec } from "./exec-spec.ts";
import type { HookPlan } from "./hooks.ts";
import type { GuestFile } from "./identity.ts";
import type { ResolvedImage } from "./images.ts";
import type { ProgressOptions } from "./interface.ts";
import { type Sizes, sizesOf } from "./start.ts";
import { planApplication, SECRETS_DIRECTORY, templateDisks } from "./warmed.ts";

/** What is set up in the guest, beside its identity. */
export interface GuestParts {
  container: ContainerSpec | undefined;
  /** Most processes; 0: no limit. */
  pids: number;
  files: readonly GuestFile[];
  hooks: HookPlan | undefined;
}

/** A VM, prepared. */
export interface Preparation {
  sizes: Sizes;
  plan: ContainerPlan | undefined;
  image: Image | undefined;
  rootDisk: ReadOnlyDisk | undefined;
  /** The template to clone, built first if need be. */
  template: () => Promise<LoadedTemplate>;
  guest: (hostname: string) => GuestParts;
  /** The main process to start; undefined: there is none, or it runs already. */
  main: (hostname: string) => ExecSpec | undefined;
  /** The main process when it is started again. */
  again: (hostname: string) => ExecSpec | undefined;
}

/** A root file system and what is known of the processes in it. */
interface Root extends ContainerBase {
  disk: ReadOnlyDisk;
  image: Image | undefined;
}

/** Options that only a container has. */
const CONTAINER_ONLY = [
  "entrypoint",
  "readOnly",
  "init",
  "tmpfs",
  "volumes",
  "diskBytes",
  "publishAll",
  "secrets",
  "capAdd",
  "capDrop",
] as const satisfies readonly (keyof CreateVmRequest)[];

/** @throws `invalid_argument`, `image_not_found`, `template_not_found`, `user_not_found` ..., for whatever the request cannot mean. */
export async function prepare(
  parts: EngineParts,
  request: CreateVmRequest,
  options: ProgressOptions,
): Promise<Preparation> {
  const named = request.template === undefined ? undefined : parts.templates.cloneable(request.template);
  const application = named?.manifest.application;
  const madeFor = named?.manifest.madeFor;
  if (madeFor !== undefined) {
    const what = `Cannot start a VM on template ${request.template}: it belongs to snapshot ${madeFor.snapshotId}`;
    throw new MayflyError("invalid_argument", `${what}; use that (run --snapshot)`);
  }
  if (named !== undefined && application !== undefined) return prepareApplication(parts, request, named, application);
  const sizes = named === undefined ? sizesOf(request) : sizesOn(named, request);
  const template = async () => named ?? templateFor(parts, sizes, request, options);
  const root = await rootOf(parts, request, options);
  if (root !== undefined) return { ...prepareContainer(request, root), sizes, template };
  refuseContainerOptions(request);
  const { command, pidsLimit = 0 } = request;
  const main = () => (command === undefined ? undefined : baseSpec(request, command, true));
  return {
    sizes,
    template,
    plan: undefined,
    image: undefined,
    rootDisk: undefined,
    guest: () => ({ container: undefined, pids: pidsLimit, files: [], hooks: undefined }),
    main,
    again: main,
  };
}

function prepareContainer(request: CreateVmRequest, root: Root): Omit<Preparation, "sizes" | "template"> {
  const plan = planContainer(request, root);
  if (plan.argv === undefined && root.image !== undefined) {
    throw new MayflyError(
      "invalid_argument",
      `Cannot run image ${root.image.name}: it has no command, and none was given`,
    );
  }
  const { user } = plan;
  const pids = request.pidsLimit ?? 0;
  const main = (hostname: string) => (plan.argv === undefined ? undefined : mainSpec(plan, request, hostname));
  return {
    plan,
    image: root.image,
    rootDisk: root.disk,
    guest: () => ({ container: plan.guest, pids, files: secretFiles(request, user), hooks: undefined }),
    main,
    again: main,
  };
}

function prepareApplication(
  { host, images }: EngineParts,
  request: CreateVmRequest,
  template: LoadedTemplate,
  application: ApplicationPart,
): Preparation {
  const start = planApplication(request, template, application, "");
  const image = images.list().find(({ id }) => id === application.image.id);
  return {
    ...start,
    image,
    rootDisk: templateDisks(host.config.stateDir, template).root,
    template: async () => template,
    guest: (hostname) => {
      const { pids, files, hooks } = planApplication(request, template, application, hostname);
      return { container: undefined, pids, files, hooks };
    },
    main: () => undefined,
    again: (hostname) => mainSpec(start.plan, request, hostname),
  };
}

/** Sizes on a template that was asked for by name: its own unless the request says less. */
function sizesOn(template: LoadedTemplate, request: CreateVmRequest): Sizes {
  const shape = shapeOf(template.manifest.fingerprint);
  const { memoryMiB, vcpus, profile } = shape;
  const wholeBytes = memoryMiB * 2 ** 20;
  const { memoryBytes = wholeBytes, cpus = vcpus } = request;
  if (memoryBytes > wholeBytes || cpus > vcpus) {
    throw new MayflyError(
      "invalid_argument",
      `Cannot start a VM of ${memoryBytes} bytes and ${cpus} CPUs on template ${template.id}: it has ${wholeBytes} and ${vcpus}`,
    );
  }
  const limited = memoryBytes < wholeBytes || cpus < vcpus;
  requireDevices(template, profile, request);
  return { shape, memoryBytes, cpus, limited };
}

/** The smallest profile with what a request asks for. */
function profileOf({ image, rootfs, volumes = [] }: CreateVmRequest): DeviceProfile {
  return profileFor({ root: image !== undefined || rootfs !== undefined, volumes: volumes.length > 0 });
}

/**
 * The template of a size that has what a request asks for and as little else as there is: one whose pool has something prepared before one that has
 * not; and before another is built, what is there serves.
 */
async function templateFor(
  { templates, pools }: EngineParts,
  { shape }: Sizes,
  request: CreateVmRequest,
  options: ProgressOptions,
): Promise<LoadedTemplate> {
  const wanted = { ...shape, profile: profileOf(request) };
  const takesPrepared = request.pool !== false && request.merge !== true;
  const prepared = takesPrepared ? templates.serving(wanted).find(({ id }) => pools.hasPrepared(id)) : undefined;
  return prepared ?? templates.served(wanted, options.onProgress ?? (() => undefined), options.deadline);
}

/** @throws `invalid_argument` when a template that was asked for by name has not what the request needs. */
function requireDevices({ id }: LoadedTemplate, profile: DeviceProfile, request: CreateVmRequest): void {
  const needed = profileOf(request);
  if (profilesWith(needed).includes(profile)) return;
  const has = `it has the device profile ${profile}, and this needs ${needed}`;
  throw new MayflyError("invalid_argument", `Cannot start this VM on template ${id}: ${has}`);
}

async function rootOf(
  parts: EngineParts,
  request: CreateVmRequest,
  options: ProgressOptions,
): Promise<Root | undefined> {
  const { images } = parts;
  if (request.image !== undefined) {
    if (request.rootfs !== undefined) {
      throw new MayflyError("invalid_argument", "Cannot start a VM with both an image and a rootfs: one is its root");
    }
    const { image, rootfs, passwd, group } = await imageOf(parts, request.image, request.pull ?? "missing", options);
    return {
      config: image.config,
      accounts: { passwd, group },
      fstype: rootfs.fstype,
      disk: rootDisk(rootfs.path),
      image,
    };
  }
  if (request.rootfs === undefined) return undefined;
  const { path, fstype } = await images.resolveRootfs(request.rootfs);
  const { passwd = "", group = "" } = request.rootfs.includes("/") ? {} : images.resolve(request.rootfs);
  return { config: {}, accounts: { passwd, group }, fstype, disk: rootDisk(path), image: undefined };
}

/** An image of the store, pulled first if it is missing or that is asked for. */
async function imageOf(
  { images, imageOperations }: EngineParts,
  reference: string,
  pull: NonNullable<CreateVmRequest["pull"]>,
  options: ProgressOptions,
): Promise<ResolvedImage> {
  if (pull !== "always") {
    try {
      return images.resolve(reference);
    } catch (error) {
      if (pull === "never" || !(error instanceof MayflyError) || error.code !== "image_not_found") throw error;
    }
  }
  try {
    const pulled = await imageOperations.pull({ reference }, options);
    return images.resolve(pulled.image.id);
  } catch (error) {
    throw withHint(reference, error);
  }
}

/** A program's name where an image's is expected is an easy mistake. */
function withHint(reference: string, error: unknown): unknown {
  if (!(error instanceof MayflyError) || !/^[a-z0-9_-]+$/.test(reference)) return error;
  const { code, message, details } = error;
  const remedy = `to run a command in the base guest, put -- before it: mayfly run -- ${reference}`;
  return new MayflyError(code, `Cannot find image ${reference}, here or in a registry: ${message}`, {
    details: { remedy, ...details },
    cause: error,
  });
}

function rootDisk(path: string): ReadOnlyDisk {
  return { path, format: "raw", readOnly: true };
}

/** The base guest is no container: what would be set up in one must not be dropped in silence. */
function refuseContainerOptions(request: CreateVmRequest): void {
  const asked = CONTAINER_ONLY.filter((name) => {
    const value = request[name];
    return value !== undefined && value !== false && !(Array.isArray(value) && value.length === 0);
  });
  if (asked.length === 0) return;
  throw new MayflyError(
    "invalid_argument",
    `Cannot start a VM with ${asked.join(", ")}: that needs an image or a rootfs`,
  );
}

/** Only the main process' user reads them. */
function secretFiles({ secrets }: CreateVmRequest, { uid, gid }: ContainerPlan["user"]): GuestFile[] {
  return Object.entries(secrets ?? {}).map(([name, base64]) => ({
    path: `${SECRETS_DIRECTORY}/${name}`,
    bytes: Buffer.from(base64, "base64"),
    mode: 0o400,
    uid,
    gid,
  }));
}
