/** From a request to a running VM: prepared (`preparation.ts`), admitted, its disks ready; then the clone, and its main process on its way. */
import type { CreateVmRequest, Vm } from "../contract/api.ts";
import { type Deadline, nowMs } from "../sys/deadline.ts";
import type { LoadedTemplate } from "../template/store.ts";
import type { EngineParts } from "./engine.ts";
import type { Gate } from "./gate.ts";
import { planHealth } from "./health.ts";
import { Holdings } from "./holdings.ts";
import type { OutputSink, ProcessSession, ProgressOptions } from "./interface.ts";
import type { Launch } from "./launch.ts";
import { newVm } from "./new-vm.ts";
import type { Pool } from "./pool.ts";
import { type Ports, withPorts } from "./ports.ts";
import { type Preparation, prepare } from "./preparation.ts";
import { checkPolicy } from "./restart-policy.ts";
import { startClone } from "./start.ts";
import { withSizes } from "./vm-disks.ts";

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
  const { admission, vms } = parts;
  checkPolicy(request.restart, request.autoRemove === true);
  const prepared = await prepare(parts, request, options);
  const { vm, launch, refill } = await admission.admit(prepared.sizes, options.deadline, () => {
    const name = vms.name(request.name);
    const made = withPorts(vms.list(), prepared.plan?.ports ?? request.ports ?? [], (ports) => {
      const vm = newVm(request, { ...prepared, name, ports: ports.published });
      return { vm, ...launchOf(parts, gate, { request, prepared, vm, ports, startedMs }, options.deadline) };
    });
    vms.admit(made.vm);
    return made;
  });
  try {
    return await vms.start(vm, launch, options.sink, options.deadline);
  } finally {
    refill();
  }
}

/** Makes the launch of a VM whose QEMU is gone: what it asked for, as its name means it now, on the image that it had. */
export async function relaunch(
  parts: EngineParts,
  gate: Gate,
  vm: Vm,
  request: CreateVmRequest,
  deadline: Deadline,
): Promise<Launch> {
  const startedMs = nowMs();
  const again: CreateVmRequest = {
    ...request,
    name: vm.name,
    ...(request.image === undefined ? {} : { image: vm.imageId ?? request.image }),
    // Ports that were free ones are its own now.
    ...(vm.ports.length === 0 ? {} : { ports: [...vm.ports], publishAll: false }),
  };
  const prepared = await prepare(parts, again, { deadline });
  return withPorts(
    parts.vms.list().filter(({ id }) => id !== vm.id),
    vm.ports,
    (ports) => launchOf(parts, gate, { request: again, prepared, vm, ports, startedMs }, deadline).launch,
  );
}

/** A VM whose document is made. */
interface Admitted {
  request: CreateVmRequest;
  prepared: Preparation;
  vm: Vm;
  /** Bound already. */
  ports: Ports;
  /** On the clock of `nowMs`, to tell how long it took. */
  startedMs: number;
}

/** How an admitted VM is started; and what fills its pool again afterwards. */
function launchOf(
  parts: EngineParts,
  gate: Gate,
  { request, prepared, vm, ports, startedMs }: Admitted,
  deadline: Deadline,
): { launch: Launch; refill: () => void } {
  const { host, templates, volumes, processImages: images } = parts;
  const { plan } = prepared;
  const holdings = new Holdings({
    disks: prepared.rootDisk === undefined ? {} : { root: prepared.rootDisk },
    volumes: [],
  });
  holdings.add(ports);
  let pool: Pool | undefined;
  let withoutImage: LoadedTemplate | undefined;
  const start = async () => {
    const own = await volumes.disks.prepare(vm, request, deadline.signal);
    holdings.addDisks(own);
    const template = await prepared.template();
    templates.touch(template);
    pool = parts.pools.of(template);
    const context = { host, gate, images, pool: request.pool === false ? undefined : pool };
    const guest = prepared.guest(vm.hostname);
    const clone = {
      ...guest,
      container: withSizes(guest.container, own.grows),
      hostname: vm.hostname,
      sizes: prepared.sizes,
      disks: holdings.record.disks,
      fills: own.fills,
      merge: vm.merge === true,
    };
    const started = await startClone(context, template, clone, deadline, startedMs).catch(async (error) => {
      await templates.discardIfCorrupt(template, error);
      throw error;
    });
    try {
      await volumes.markUsed(own.fills.map(({ volume }) => volume));
    } catch (error) {
      await started.clone.qemu.kill();
      throw error;
    }
    ports.open(started.clone.agent);
    if (started.path === "cold" || started.path === "pool") withoutImage = template;
    return started;
  };
  const launch: Launch = {
    request,
    start,
    main: prepared.main(vm.hostname),
    again: prepared.again(vm.hostname),
    container: plan === undefined ? null : { defaults: plan.defaults, user: plan.user },
    health: planHealth(plan === undefined ? request.health : plan.health),
    holdings,
  };
  const refill = () => {
    pool?.refillSoon();
    // The next one for which nothing is prepared goes on from that.
    if (withoutImage !== undefined) void parts.imageMaker.make(withoutImage);
  };
  return { launch, refill };
}
