/** Live fork: VMs from a running one, which goes on. */
import type { ForkRequest, ForkResult, Vm } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import type { DiskFiles } from "../machine/devices/disk.ts";
import { shapeOf } from "../machine/profile.ts";
import { type Deadline, nowMs } from "../sys/deadline.ts";
import { copySparse } from "../sys/memory-file.ts";
import type { LoadedTemplate } from "../template/store.ts";
import type { GuestObjects } from "./capture.ts";
import { type CapturedVm, copyNames, copyOf, hooksOf, planHooks } from "./captured-vm.ts";
import type { EngineParts } from "./engine.ts";
import { CaptureSource, type ForkParent, type ForkSource } from "./fork-source.ts";
import type { Gate } from "./gate.ts";
import { Holdings } from "./holdings.ts";
import { newIdentity } from "./identity.ts";
import type { Launch } from "./launch.ts";
import { Ports } from "./ports.ts";
import type { HeldRecord, VmRecord } from "./records.ts";
import { StageClock } from "./stages.ts";
import { hexOf, limitHost } from "./start.ts";

/** A child that has its name, ports and places for disks. */
interface Child {
  vm: Vm;
  ports: Ports;
  holdings: Holdings;
}

/**
 * Forks a running VM.
 * @throws `vm_not_running`, `not_capturable`, `template_not_found`, `name_in_use`, `limit_reached` ...; no child is left then, and the VM
 * goes on.
 */
export async function forkVm(
  parts: EngineParts,
  gate: Gate,
  ref: string,
  request: ForkRequest,
  deadline: Deadline,
): Promise<ForkResult> {
  const startedMs = nowMs();
  const { vms, events, metrics } = parts;
  const running = vms.withMain(ref, "fork");
  // Its children may have to wait for memory, which it is not to be suspended for.
  using _awake = running.stayAwake();
  const record = requireCapturable(vms.record(running.id), "fork");
  const template = baseTemplate(parts, record.vm, "fork");
  const parent = { running, record, template };
  const captured = { ...record, hooks: await hooksOf(running, record, template, deadline) };
  const children = await admitChildren(parts, record, request, deadline);
  try {
    using source = await sourceOf(parts, gate, parent, children, deadline);
    const started = children.map((child) => {
      const launch = launchOf(parent, captured, child, source, startedMs, deadline);
      return vms.start(child.vm, launch, undefined, deadline);
    });
    const outcomes = await Promise.allSettled(started);
    const failed = outcomes.find((outcome) => outcome.status === "rejected");
    if (failed !== undefined) throw failed.reason;
    const { times, stages, deltaBytes } = await source.cost;
    metrics.captured("fork", times, stages);
    const vmIds = children.map(({ vm }) => vm.id);
    events.emit("vm.forked", running.id, record.vm.name, { vmIds, stoppedMs: times.stoppedMs, deltaBytes });
    return { vmIds, times, deltaBytes };
  } catch (error) {
    await removeChildren(parts, children);
    throw error;
  } finally {
    parts.pools.of(template).refill();
  }
}

/** Copies the parent, or makes ready to save its state. */
async function sourceOf(
  { host, vms, pools, forkCopies }: EngineParts,
  gate: Gate,
  parent: ForkParent,
  children: readonly Child[],
  deadline: Deadline,
): Promise<ForkSource> {
  const { vm, held } = parent.record;
  const record = () => vms.record(vm.id);
  const copies = forkCopies.canCopy(parent.record)
    ? await forkCopies.take(parent, record, children.length, deadline)
    : undefined;
  if (copies !== undefined) return copies;
  const context = { host, gate, pool: pools.of(parent.template), merge: vm.merge };
  const [first, ...others] = children;
  const disks = {
    whileStopped: () => copyScratch(held.disks, first === undefined ? [] : [first], deadline),
    afterwards: () => copyScratch(first?.holdings.record.disks ?? {}, others, deadline),
  };
  return new CaptureSource(context, parent, record, children.length, disks, deadline);
}

/** None of them is left, whether it runs or was never started. */
async function removeChildren({ vms }: EngineParts, children: readonly Child[]): Promise<void> {
  for (const { vm, holdings } of children) {
    if (vms.record(vm.id)?.vm.state === "creating") {
      await holdings.release("never_started");
      vms.dismiss(vm.id);
    } else if (vms.record(vm.id) !== undefined) await vms.remove(vm.id, true);
  }
}

/** A VM whose state can be taken while it goes on. @throws `not_capturable` naming what cannot be copied, and what to do. */
export function requireCapturable(record: VmRecord | undefined, verb: string): VmRecord {
  if (record === undefined) throw new MayflyError("vm_not_running", `Cannot ${verb} a VM that has just been removed`);
  const { vm, held } = record;
  const [volume] = held.volumes;
  if (volume === undefined) return record;
  throw new MayflyError(
    "not_capturable",
    `Cannot ${verb} VM ${vm.name}: volume ${volume} is its own, and both would write to it; suspend it (checkpoint --and-stop), or keep the data elsewhere`,
    { vmId: vm.id, details: { volumes: held.volumes } },
  );
}

/** The template whose memory a VM shares. @throws `template_not_found`, `template_incompatible`, `template_corrupt`. */
export function baseTemplate({ templates }: Pick<EngineParts, "templates">, vm: Vm, verb: string): LoadedTemplate {
  try {
    const template = templates.cloneable(vm.templateId);
    template.check();
    return template;
  } catch (error) {
    if (!(error instanceof MayflyError) || error.code !== "template_not_found") throw error;
    const why = `its template ${vm.templateId}, whose memory it shares, was removed`;
    throw new MayflyError("template_not_found", `Cannot ${verb} VM ${vm.name}: ${why}`, { vmId: vm.id, cause: error });
  }
}

/** Gives all children their names, ports and places for disks. Nothing is left of any if one cannot have them. */
async function admitChildren(
  { admission, vms, volumes }: EngineParts,
  { vm, held }: VmRecord,
  { count = 1, namePrefix, labels, autoRemove = false }: ForkRequest,
  deadline: Deadline,
): Promise<Child[]> {
  const names = copyNames(namePrefix, count);
  const origin = { kind: "fork" as const, id: vm.id, name: vm.name };
  const children: Child[] = [];
  const admit = (wanted: string | undefined) => {
    const name = vms.name(wanted);
    const ports = new Ports(vm.ports.map(({ hostIp, guestPort }) => ({ hostIp, hostPort: 0, guestPort })));
    const holdings = new Holdings(emptyHeld(held));
    holdings.add(ports);
    const child = copyOf(vm, { name, labels, ports: ports.published, autoRemove, origin });
    children.push({ vm: child, ports, holdings });
    vms.admit(child);
  };
  try {
    await admission.admit({ memoryBytes: vm.memoryBytes, count }, deadline, () => {
      // All of them, before anything is made.
      for (const name of names) if (name !== undefined) vms.name(name);
      for (const name of names) admit(name);
    });
    for (const { vm: child, holdings } of children) holdings.addDisks(await volumes.disks.copy(child, held.disks));
  } catch (error) {
    for (const { vm: child, holdings } of children) {
      await holdings.release("never_started");
      vms.dismiss(child.id);
    }
    throw error;
  }
  return children;
}

/** What a copy holds before it has disks of its own: the root, which nobody writes. */
export function emptyHeld({ disks: { root } }: HeldRecord): HeldRecord {
  return { disks: root === undefined ? {} : { root }, volumes: [] };
}

/** Copies a scratch disk over those of children. Its VM stands still, or has not begun to run. */
async function copyScratch({ scratch }: DiskFiles, children: readonly Child[], deadline: Deadline): Promise<void> {
  if (scratch === undefined) return;
  for (const { holdings } of children) {
    const to = holdings.record.disks.scratch?.path;
    if (to !== undefined) await copySparse(scratch.path, to, deadline.signal);
  }
}

/** How a child is started. */
function launchOf(
  { record, template }: ForkParent,
  captured: CapturedVm,
  { vm, ports, holdings }: Child,
  source: ForkSource,
  startedMs: number,
  deadline: Deadline,
): Launch {
  const { stopGraceMs, killAtMs } = record;
  const goesOnAt = { output: 0, error: 0 };
  const start = async () => {
    const clock = new StageClock(startedMs);
    clock.end("plan");
    const identity = newIdentity(vm.hostname);
    const hooks = planHooks(captured, "fork", vm.hostname);
    const setup = { identity, hooks, container: undefined, limits: undefined, files: [], fills: [] };
    const plan = { disks: holdings.record.disks, setup };
    const onMain = (main: GuestObjects["main"]) => {
      if (main !== null) Object.assign(goesOnAt, { output: main.output, error: main.error });
    };
    const { clone, path } = await source.bringUp(plan, onMain, clock, deadline);
    ports.open(clone.agent);
    const sizes = {
      shape: shapeOf(template.manifest.fingerprint),
      memoryBytes: vm.memoryBytes,
      cpus: vm.cpus,
      limited: false,
    };
    return { clone: limitHost(clone, sizes), path, clock, machineId: hexOf(identity.machineId) };
  };
  return {
    request: {
      ...(stopGraceMs === null ? {} : { stopGraceMs }),
      ...(killAtMs === null ? {} : { timeoutMs: Math.max(1, killAtMs - Date.now()) }),
    },
    start,
    main: undefined,
    again: captured.again ?? undefined,
    goesOnAt,
    hooks: captured.hooks,
    container: captured.container,
    health: captured.health ?? undefined,
    holdings,
  };
}
