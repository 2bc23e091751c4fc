/** The document and the record of a VM that is about to be started. */
import type { CreateVmRequest, Image, PublishedPort, Vm } from "../contract/api.ts";
import { newId } from "../sys/ids.ts";
import type { ContainerPlan } from "./container-plan.ts";
import { planHealth, startingHealth } from "./health.ts";
import { planIdle } from "./idle-policy.ts";

const SIGTERM = 15;

/** What is decided of a VM before it is started. */
export interface NewVm {
  name: string;
  sizes: { memoryBytes: number; cpus: number };
  plan: ContainerPlan | undefined;
  image: Image | undefined;
  ports: readonly PublishedPort[];
}

/** The document of a VM in the state `creating`. */
export function newVm(request: CreateVmRequest, { name, sizes, plan, image, ports }: NewVm): Vm {
  return {
    id: newId("vm"),
    name,
    state: "creating",
    command: plan?.argv ?? request.command ?? [],
    hostname: request.hostname ?? hostnameFrom(name),
    labels: plan?.labels ?? request.labels ?? {},
    memoryBytes: sizes.memoryBytes,
    cpus: sizes.cpus,
    templateId: "",
    origin: null,
    suspendedIn: null,
    rootfs: request.rootfs ?? null,
    image: image?.name ?? null,
    imageId: image?.id ?? null,
    ports: [...ports],
    mounts: mountsOf(request),
    restart: request.restart ?? { name: "no" },
    restartCount: 0,
    health: planHealth(plan === undefined ? request.health : plan.health) === undefined ? null : startingHealth(),
    stopSignal: plan?.stopSignal ?? request.stopSignal ?? SIGTERM,
    autoRemove: request.autoRemove === true,
    ...(request.merge === true ? { merge: true } : {}),
    ...planIdle(request.idle),
    terminal: request.terminal !== undefined,
    createdAt: new Date().toISOString(),
    startedAt: null,
    finishedAt: null,
    pid: null,
    exitCode: null,
    exitSignal: null,
    error: null,
    clone: { path: null, readyMs: null, stages: {} },
  };
}

function mountsOf(request: CreateVmRequest): Vm["mounts"] {
  const volumes = (request.volumes ?? []).map(({ source, target, readOnly }) =>
    "volume" in source
      ? ({ kind: "volume", source: source.volume, target, readOnly: readOnly === true } as const)
      : ({ kind: "directory", source: source.directory, target, readOnly: true } as const),
  );
  const tmpfs = (request.tmpfs ?? []).map(
    ({ target, readOnly }) => ({ kind: "tmpfs", source: "tmpfs", target, readOnly: readOnly === true }) as const,
  );
  return [...volumes, ...tmpfs];
}

/** A host name from a VM's name: what a host name may not have becomes a hyphen. */
export function hostnameFrom(name: string): string {
  return name.replaceAll(/[^a-zA-Z0-9-]/g, "-").slice(0, 63);
}
