/** Clones of a snapshot: VMs of their own that go on from it. */
import type { CreateVmRequest, Vm } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import type { Deadline } from "../sys/deadline.ts";
import { copyOf } from "./captured-vm.ts";
import type { EngineParts } from "./engine.ts";
import { emptyHeld } from "./fork.ts";
import type { Gate } from "./gate.ts";
import { type HealthPlan, planHealth, startingHealth } from "./health.ts";
import { Holdings } from "./holdings.ts";
import { newIdentity } from "./identity.ts";
import { planIdle } from "./idle-policy.ts";
import type { OutputSink, ProcessSession } from "./interface.ts";
import type { Launch } from "./launch.ts";
import { type Ports, withPorts } from "./ports.ts";
import { launchFrom } from "./snapshot-launch.ts";
import type { ReadySnapshot, SnapshotRecords } from "./snapshot-records.ts";
import { FIXED, instanceFiles, secretVariables } from "./warmed.ts";

/**
 * Starts a clone of a snapshot.
 * @throws `snapshot_not_found`, `snapshot_corrupt`, `snapshot_incompatible`, `not_capturable`; `invalid_argument` for what the snapshot has
 * decided. Nothing is left then.
 */
export async function createFromSnapshot(
  parts: EngineParts,
  gate: Gate,
  snapshots: SnapshotRecords,
  request: CreateVmRequest,
  options: { sink?: OutputSink; deadline: Deadline; onCopied: (id: string) => void },
): Promise<{ vm: Vm; process: ProcessSession | undefined }> {
  const { admission, vms } = parts;
  const { snapshot, health } = await prepareClone(snapshots, request);
  const { memoryBytes = snapshot.vm.captured.vm.memoryBytes } = request;
  const { vm, holdings } = await admission.admit({ memoryBytes }, options.deadline, () => {
    const name = vms.name(request.name);
    const made = withPorts(vms.list(), request.ports ?? [], (ports) =>
      documentOf(request, snapshot, { name, health, ports }),
    );
    vms.admit(made.vm);
    return made;
  });
  const onCopied = () => options.onCopied(snapshot.document.id);
  let refill = () => {};
  try {
    const made = await launchOf(
      parts,
      gate,
      { request, snapshot, vm, holdings, health, onCopied },
      options.deadline,
    ).catch(async (error: unknown) => {
      await holdings.release("never_started");
      vms.dismiss(vm.id);
      throw error;
    });
    refill = made.refill;
    return await vms.start(vm, made.launch, options.sink, options.deadline);
  } finally {
    refill();
  }
}

/** Makes the launch of a clone whose QEMU is gone: it goes on from its snapshot again. */
export async function relaunchFromSnapshot(
  parts: EngineParts,
  gate: Gate,
  snapshots: SnapshotRecords,
  vm: Vm,
  request: CreateVmRequest,
  deadline: Deadline,
): Promise<Launch> {
  const { snapshot, health } = await prepareClone(snapshots, request);
  const holdings = withPorts(parts.vms.list(), vm.ports, (ports) => holdingsOf(snapshot, ports));
  return (await launchOf(parts, gate, { request, snapshot, vm, holdings, health, onCopied: () => {} }, deadline))
    .launch;
}

async function prepareClone(
  snapshots: SnapshotRecords,
  request: CreateVmRequest,
): Promise<{ snapshot: ReadySnapshot; health: HealthPlan | null }> {
  refuseFixed(request);
  const snapshot = await snapshots.ready(request.snapshot ?? "");
  const { captured, held } = snapshot.vm;
  const [volume] = held.volumes;
  if (volume !== undefined) {
    const what = `Cannot clone snapshot ${snapshot.document.name ?? snapshot.document.id}`;
    throw new MayflyError("not_capturable", `${what}: volume ${volume} is its VM's own`, {
      details: { volumes: held.volumes },
    });
  }
  const { memoryBytes, cpus } = snapshot.document;
  if ((request.memoryBytes ?? 0) > memoryBytes || (request.cpus ?? 0) > cpus) {
    const has = `it has ${memoryBytes} bytes and ${cpus} CPUs`;
    throw new MayflyError("invalid_argument", `Cannot give a clone of a snapshot more than that has: ${has}`);
  }
  const health = request.health === undefined ? captured.health : (planHealth(healthCheck(request.health)) ?? null);
  return { snapshot, health };
}

/** A check as it is asked for; `["NONE"]` takes the snapshot's away. */
function healthCheck(health: NonNullable<CreateVmRequest["health"]>): Parameters<typeof planHealth>[0] {
  const { test } = health;
  return test === undefined ? undefined : { ...health, test };
}

function refuseFixed(request: CreateVmRequest): void {
  const asked = [...FIXED, "template" as const, "publishAll" as const].filter((name) => {
    const value = request[name];
    return value !== undefined && value !== false && !(Array.isArray(value) && value.length === 0);
  });
  if (asked.length === 0) return;
  throw new MayflyError(
    "invalid_argument",
    `Cannot start a clone of a snapshot with ${asked.join(", ")}: what runs in it runs already`,
  );
}

function holdingsOf({ vm: { held } }: ReadySnapshot, ports: Ports): Holdings {
  const holdings = new Holdings(emptyHeld(held));
  holdings.add(ports);
  return holdings;
}

function documentOf(
  request: CreateVmRequest,
  snapshot: ReadySnapshot,
  { name, health, ports }: { name: string; health: HealthPlan | null; ports: Ports },
): { vm: Vm; holdings: Holdings } {
  const { document } = snapshot;
  const { vm: before } = snapshot.vm.captured;
  const { labels, hostname, autoRemove = false, restart, memoryBytes, cpus, stopSignal } = request;
  const origin = { kind: "snapshot" as const, id: document.id, name: document.name };
  const copy = copyOf(before, { name, labels, hostname, ports: ports.published, autoRemove, origin, restart });
  const { idle: _, ...runs } = copy;
  const vm: Vm = {
    ...(request.idle === undefined ? copy : { ...runs, ...planIdle(request.idle) }),
    memoryBytes: memoryBytes ?? copy.memoryBytes,
    cpus: cpus ?? copy.cpus,
    stopSignal: stopSignal ?? copy.stopSignal,
    ...(request.merge === undefined ? {} : { merge: request.merge }),
    health: health === null ? null : startingHealth(),
  };
  return { vm, holdings: holdingsOf(snapshot, ports) };
}

/** A clone whose document is made. */
interface Made {
  request: CreateVmRequest;
  snapshot: ReadySnapshot;
  vm: Vm;
  holdings: Holdings;
  health: HealthPlan | null;
  onCopied: () => void;
}

async function launchOf(
  parts: EngineParts,
  gate: Gate,
  made: Made,
  deadline: Deadline,
): Promise<{ launch: Launch; refill: () => void }> {
  const { request, snapshot, vm, holdings, health, onCopied } = made;
  const { captured, held, main } = snapshot.vm;
  const { env = {}, secrets = {}, memoryBytes, cpus, pidsLimit } = request;
  holdings.addDisks(await parts.volumes.disks.copy(vm, held.disks));
  const isLess = memoryBytes !== undefined || cpus !== undefined || pidsLimit !== undefined;
  const limits = { memoryBytes: vm.memoryBytes, cpuMillis: Math.round(vm.cpus * 1000), pids: pidsLimit ?? 0 };
  const { output = 0, error = 0 } = main ?? {};
  const stopGraceMs = request.stopGraceMs ?? captured.stopGraceMs;
  const user = captured.container?.user ?? { uid: 0, gid: 0 };
  const revival = {
    kind: "clone" as const,
    snapshot,
    vm,
    request: { ...request, snapshot: snapshot.document.id, ...(stopGraceMs === null ? {} : { stopGraceMs }) },
    identity: newIdentity(vm.hostname),
    holdings,
    goesOnAt: { output, error },
    health,
    limits: isLess ? limits : undefined,
    files: instanceFiles(request, { user }),
    env: { ...secretVariables(secrets), ...env },
    onCopied,
  };
  return launchFrom(parts, gate, revival, deadline);
}
