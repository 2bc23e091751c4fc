/** From a request to a running VM: image, container, ports and disks; then the clone, and its main process on its way. */
import type { ExecSpec } from "../agent/requests.ts";
import type { CreateVmRequest, Image, Vm } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import type { ReadOnlyDisk } from "../machine/profile.ts";
import { nowMs } from "../sys/deadline.ts";
import type { LoadedTemplate } from "../template/store.ts";
import { type ContainerBase, type ContainerPlan, mainSpec, planContainer } from "./container-plan.ts";
import type { EngineParts } from "./engine.ts";
import { baseSpec } from "./exec-spec.ts";
import type { Gate } from "./gate.ts";
import { Holdings } from "./holdings.ts";
import type { GuestFile } from "./identity.ts";
import type { OutputSink, ProcessSession, ProgressOptions } from "./interface.ts";
import { newVm } from "./new-vm.ts";
import type { Pool } from "./pool.ts";
import { type Sizes, sizesOf, startClone } from "./start.ts";

/** A root file system and what is known of the processes in it. */
interface Root extends ContainerBase {
  disk: ReadOnlyDisk;
  image: Image | undefined;
}

/** Where secrets are in a container, as docker has them. */
const SECRETS = "/run/secrets";

/**
 * Starts a VM, and with a command its main process.
 * @throws whatever the request or the host lack; nothing is left of the VM then.
 */
export async function createVm(
  parts: EngineParts,
  gate: Gate,
  request: CreateVmRequest,
  options: ProgressOptions & { sink?: OutputSink },
): Promise<{ vm: Vm; process: ProcessSession | undefined }> {
  const startedMs = nowMs();
  const { templates, vms } = parts;
  const sizes = sizesOf(request);
  const root = await rootOf(parts, request);
  const plan = root === undefined ? undefined : planContainer(request, root);
  if (plan === undefined) refuseContainerOptions(request);
  else if (root?.image !== undefined) refuseWithoutCommand(plan, root.image);
  const vm = newVm(request, { name: vms.name(request.name), sizes, plan, image: root?.image, ports: [] });
  const holdings = new Holdings({ disks: root === undefined ? {} : { root: root.disk }, volumes: [] });
  vms.admit(vm);
  let pool: Pool | undefined;
  const start = async () => {
    const own = await parts.volumes.disks.prepare(vm, request, options.deadline.signal);
    holdings.addDisks(own);
    const template = await templateFor(parts, sizes, options);
    templates.touch(template);
    pool = parts.pools.of(template);
    const context = { host: parts.host, gate, pool: request.pool === false ? undefined : pool };
    const start = {
      hostname: vm.hostname,
      sizes,
      disks: holdings.record.disks,
      container: plan?.guest,
      pids: request.pidsLimit ?? 0,
      files: secretFiles(request),
      fills: own.fills,
    };
    const started = await startClone(context, template, start, options.deadline, startedMs).catch(async (error) => {
      await templates.discardIfCorrupt(template, error);
      throw error;
    });
    await parts.volumes.markUsed(own.fills.map(({ volume }) => volume));
    return started;
  };
  const launch = {
    start,
    main: mainOf(request, plan, vm.hostname),
    timeoutMs: request.timeoutMs,
    container: plan === undefined ? null : { defaults: plan.defaults, user: plan.user },
    holdings,
  };
  try {
    return await vms.start(vm, launch, options.sink, options.deadline);
  } finally {
    // Spawning takes milliseconds of this thread: only now, with the command on its way, is there time for it.
    pool?.refill();
  }
}

async function templateFor(parts: EngineParts, { shape }: Sizes, options: ProgressOptions): Promise<LoadedTemplate> {
  const { templates } = parts;
  const existing = templates.existing(shape);
  return existing ?? templates.ensure(shape, options.onProgress ?? (() => undefined), options.deadline);
}

async function rootOf({ images }: EngineParts, request: CreateVmRequest): Promise<Root | undefined> {
  if (request.image !== undefined) {
    if (request.rootfs !== undefined) {
      throw new MayflyError("invalid_argument", "Cannot start a VM with both an image and a rootfs: one is its root");
    }
    const { image, rootfs, passwd, group } = images.resolve(request.image);
    const disk = { path: rootfs.path, format: "raw", readOnly: true } as const;
    return { config: image.config, accounts: { passwd, group }, fstype: rootfs.fstype, disk, image };
  }
  if (request.rootfs === undefined) return undefined;
  const { path, fstype } = await images.resolveRootfs(request.rootfs);
  const accounts = request.rootfs.includes("/") ? undefined : images.resolve(request.rootfs);
  return {
    config: {},
    accounts: { passwd: accounts?.passwd ?? "", group: accounts?.group ?? "" },
    fstype,
    disk: { path, format: "raw", readOnly: true },
    image: undefined,
  };
}

/** The base guest is no container: what would be set up in one must not be dropped in silence. */
function refuseContainerOptions(request: CreateVmRequest): void {
  const asked = (
    [
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
    ] as const
  ).filter((name) => {
    const value = request[name];
    return value !== undefined && value !== false && !(Array.isArray(value) && value.length === 0);
  });
  if (asked.length === 0) return;
  throw new MayflyError(
    "invalid_argument",
    `Cannot start a VM with ${asked.join(", ")}: that needs an image or a rootfs`,
  );
}

function refuseWithoutCommand(plan: ContainerPlan, image: Image): void {
  if (plan.argv !== undefined) return;
  throw new MayflyError("invalid_argument", `Cannot run image ${image.name}: it has no command, and none was given`);
}

function mainOf(request: CreateVmRequest, plan: ContainerPlan | undefined, hostname: string): ExecSpec | undefined {
  if (plan?.argv !== undefined) return mainSpec(plan, request, hostname);
  return request.command === undefined ? undefined : baseSpec(request, request.command, true);
}

function secretFiles({ secrets }: CreateVmRequest): GuestFile[] {
  return Object.entries(secrets ?? {}).map(([name, base64]) => ({
    path: `${SECRETS}/${name}`,
    bytes: Buffer.from(base64, "base64"),
    mode: 0o400,
  }));
}
