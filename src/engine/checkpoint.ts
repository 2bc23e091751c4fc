/** Checkpoint: a running VM's state into a snapshot; it goes on as soon as its pages are copied. With `stop` it waits in it: suspend. */
import type { CaptureTimes, CheckpointRequest, Snapshot, Vm } from "../contract/api.ts";
import { reduce } from "../snapshot/reduce.ts";
import type { SnapshotDraft, SnapshotWorkspace } from "../snapshot/store.ts";
import { type Deadline, nowMs } from "../sys/deadline.ts";
import { newId } from "../sys/ids.ts";
import { copySparse } from "../sys/memory-file.ts";
import type { LoadedTemplate } from "../template/store.ts";
import { type Captured, captureVm } from "./capture.ts";
import { hooksOf } from "./captured-vm.ts";
import type { EngineParts } from "./engine.ts";
import { baseTemplate, requireCapturable } from "./fork.ts";
import { tenantGid } from "./host.ts";
import type { VmRecord } from "./records.ts";
import type { RunningVm } from "./running-vm.ts";
import { encodeSnapshotVm, type SnapshotRecords, type SnapshotVm } from "./snapshot-records.ts";

/** What a snapshot is made of. */
interface Subject {
  running: RunningVm;
  record: VmRecord;
  template: LoadedTemplate;
  hooks: SnapshotVm["captured"]["hooks"];
  request: CheckpointRequest;
  /** On the clock of `nowMs`. */
  startedMs: number;
}

/** What was written. */
interface Written {
  document: Snapshot;
  vm: SnapshotVm;
}

const NOT_STOPPED: CaptureTimes = { stoppedMs: 0, vcpuStoppedMs: 0, durableMs: null };

/**
 * Writes a running VM's state into a snapshot. The order, so that whatever is killed there is the old state or the new one: published on disk,
 * recorded; when suspending, the VM recorded as suspended, its QEMU ended. What was published and not recorded goes at the next start.
 * @param wake brings the VM back when something needs it.
 * @throws `vm_not_running`, `not_capturable`, `name_in_use`, `disk_full` ...; the VM goes on then, and nothing is left.
 */
export async function checkpointVm(
  parts: EngineParts,
  snapshots: SnapshotRecords,
  ref: string,
  request: CheckpointRequest,
  wake: (id: string) => void,
  deadline: Deadline,
): Promise<Snapshot> {
  const { vms, events } = parts;
  const running = vms.withMain(ref, request.stop === true ? "suspend" : "checkpoint");
  const { id, name } = vms.get(running.id);
  const record = request.stop === true ? vms.record(id) : requireCapturable(vms.record(id), "checkpoint");
  if (record === undefined) throw requireCapturable(record, "checkpoint");
  snapshots.requireFree(request.name);
  const template = baseTemplate(parts, record.vm, "checkpoint");
  const hooks = await hooksOf(running, record, template, deadline);
  const subject = { running, record, template, hooks, request, startedMs: nowMs() };
  const document =
    request.stop === true
      ? await suspend(parts, snapshots, subject, wake, deadline)
      : await checkpoint(parts, snapshots, subject, deadline);
  events.emit("vm.checkpointed", id, name, { snapshotId: document.id, stop: request.stop === true, ...document.times });
  return document;
}

/** The VM goes on while its pages are compared and written. */
async function checkpoint(
  parts: EngineParts,
  snapshots: SnapshotRecords,
  subject: Subject,
  deadline: Deadline,
): Promise<Snapshot> {
  const { vms, metrics } = parts;
  const { running } = subject;
  const written = await publish(parts, snapshots, subject, async (workspace) => {
    const copyDisks = async (captured: Captured) => {
      await copyScratch(subject.record, workspace, deadline);
      return { value: captured, goesOn: true };
    };
    const { value, times, clock } = await captureVm(running, () => vms.record(running.id), copyDisks, deadline);
    using captured = value;
    const parts = await writeParts(workspace, subject, captured);
    clock.end("write");
    metrics.captured("checkpoint", times, clock.stages);
    return { ...parts, captured, times };
  });
  await snapshots.add(written.document, written.vm);
  return written.document;
}

/** The vCPUs stay stopped until all is on disk; then the VM is recorded as suspended, and its QEMU goes. */
async function suspend(
  parts: EngineParts,
  snapshots: SnapshotRecords,
  subject: Subject,
  wake: (id: string) => void,
  deadline: Deadline,
): Promise<Snapshot> {
  const { vms, metrics } = parts;
  const { running, record } = subject;
  // What is only in the guest's cache would be gone with a snapshot that is never resumed.
  const writes = record.held.volumes.length > 0 || record.held.disks.scratch !== undefined;
  if (writes) await running.clone.qemu.untilExit(running.agent.sync(deadline), "writing back");
  const whileStopped = async (captured: Captured) => {
    using state = captured;
    const written = await publish(parts, snapshots, subject, async (workspace) => {
      await copyScratch(record, workspace, deadline);
      return { ...(await writeParts(workspace, subject, state)), captured: state, times: NOT_STOPPED };
    });
    await parts.suspendedImages.make(running, record, written.document.id, deadline);
    deadline.signal?.throwIfAborted();
    await snapshots.add(written.document, written.vm);
    try {
      // Bound, not a closure: that would keep all of this, the VM's state with it, for as long as it is suspended.
      await vms.park(running, written.document.id, wake.bind(undefined, record.vm.id));
    } catch (error) {
      await snapshots.remove(written.document.id);
      throw error;
    }
    return { value: written.document, goesOn: false };
  };
  const { value, clock } = await captureVm(running, () => vms.record(running.id), whileStopped, deadline);
  metrics.captured("suspend", value.times, clock.stages);
  return value;
}

/** What a builder of a snapshot returns. */
type Built = Omit<SnapshotDraft, "kind" | "base" | "vm"> & { captured: Captured; times: CaptureTimes };

/** Publishes a snapshot and makes its document. */
async function publish(
  { host }: EngineParts,
  snapshots: SnapshotRecords,
  subject: Subject,
  build: (workspace: SnapshotWorkspace) => Promise<Built>,
): Promise<Written> {
  const { request, record, template, hooks, startedMs } = subject;
  const { id: templateId, fingerprint, fingerprintHash, memory } = template.manifest;
  const kind = request.stop === true ? "suspended" : "checkpoint";
  const id = newId("snap");
  let made: { vm: SnapshotVm; times: CaptureTimes } | undefined;
  const manifest = await snapshots.store.publish({ id, gid: tenantGid(host) }, async (workspace) => {
    const { captured, times, ...files } = await build(workspace);
    const { main, others } = captured;
    const { vm, container, again, stopGraceMs, health, machineId, held } = record;
    const described: SnapshotVm = {
      captured: { vm, container, again, stopGraceMs, health, machineId, hooks },
      held: { disks: { ...held.disks }, volumes: [...held.volumes] },
      main,
      others,
    };
    made = { vm: described, times };
    const { sizeBytes, sha256 } = memory;
    const base = { id: templateId, fingerprint, fingerprintHash, memory: { sizeBytes, sha256 } };
    return { ...files, kind, base, vm: encodeSnapshotVm(described) };
  });
  const durableMs = Math.round((nowMs() - startedMs) * 1000) / 1000;
  const { vm, times = NOT_STOPPED } = made ?? {};
  const stood = kind === "suspended" ? { stoppedMs: durableMs, vcpuStoppedMs: durableMs } : times;
  const document: Snapshot = {
    ...describe(record.vm),
    id,
    name: request.name ?? null,
    createdAt: manifest.createdAt,
    kind,
    pages: manifest.pages.count,
    zeroPages: manifest.pages.zeroCount,
    sizeBytes: await snapshots.store.sizeBytes(id),
    promotedTo: null,
    times: { ...stood, durableMs },
  };
  if (vm === undefined) throw new Error("a snapshot was published without being built");
  return { document, vm };
}

/** What a snapshot says of its VM. */
export function describe(
  vm: Vm,
): Pick<Snapshot, "templateId" | "vmId" | "vmName" | "origin" | "image" | "memoryBytes" | "cpus"> {
  const { templateId, id, name, origin, image, rootfs, memoryBytes, cpus } = vm;
  return { templateId, vmId: id, vmName: name, origin, image: image ?? rootfs, memoryBytes, cpus };
}

/** Copies the VM's scratch disk, which nobody writes now. */
async function copyScratch({ held }: VmRecord, workspace: SnapshotWorkspace, deadline: Deadline): Promise<void> {
  const { scratch } = held.disks;
  if (scratch === undefined) return;
  await copySparse(scratch.path, workspace.diskPath("scratch", scratch.format), deadline.signal);
}

/** Writes what is left of the pages without those that the base has. */
async function writeParts(
  workspace: SnapshotWorkspace,
  { record, template }: Subject,
  captured: Captured,
): Promise<Pick<SnapshotDraft, "pages" | "deviceState" | "disks">> {
  const reduced = await reduce(captured.pages, template.memoryPath);
  const pages = await workspace.writePages(reduced);
  const { scratch } = record.held.disks;
  const disks = scratch === undefined ? [] : [{ slot: "scratch", format: scratch.format }];
  return { pages, deviceState: captured.devices, disks };
}
