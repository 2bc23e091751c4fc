/**
 * The path of a clone, top to bottom: template checked -> plan -> QEMU spawned or taken from the pool -> device state
 * into its socket -> the agent answers -> identity applied -> ready. Any failure destroys what there is of the clone.
 */
import { AgentClient } from "../agent/client.ts";
import { MayflyError } from "../contract/errors.ts";
import type { Shape } from "../contract/machine.ts";
import type { DiskFiles } from "../machine/devices/disk.ts";
import { shapeOf } from "../machine/profile.ts";
import type { Deadline } from "../sys/deadline.ts";
import type { ApplicationPart } from "../template/application.ts";
import type { LoadedTemplate } from "../template/store.ts";
import { QEMU_OVERHEAD_BYTES, QEMU_PIDS } from "./config.ts";
import { attachDisks, grantDisks } from "./disks.ts";
import { cloneMemoryMode, type Host, planFor, tenantGid } from "./host.ts";
import { applyIdentity, type GuestSetup } from "./identity.ts";
import { planFromImage } from "./plan.ts";
import { QemuProcess } from "./qemu-process.ts";
import { ResumedMain } from "./resumed-main.ts";
import type { Slot } from "./slots.ts";
import type { CloneStage, StageClock } from "./stages.ts";

/** What distinguishes a clone from its template. */
export interface CloneRequest extends GuestSetup {
  disks: DiskFiles;
  /** Whether its memory may be merged with that of others, where its QEMU is spawned for it. */
  merge?: boolean;
}

/** A clone whose agent answers. Who holds it ends it by `qemu.kill()`. */
export interface Clone {
  qemu: QemuProcess;
  agent: AgentClient;
  /** Where it came from: gone perhaps, while it runs on. */
  template: Pick<LoadedTemplate, "id" | "memoryPath">;
  /** Resolves with the cause when the agent's connection ends by anything but our own closing. */
  agentClosed: Promise<MayflyError>;
  /** The main process that came with its template. */
  main: ResumedMain | undefined;
}

/** What the host has of a guest that runs: its agent, and its main process. */
export type CloneChannel = Pick<Clone, "agent" | "agentClosed" | "main">;

/** A clone that was resumed, warmed and paused again before it was asked for. */
export interface WarmClone {
  qemu: QemuProcess;
  template: LoadedTemplate;
  /** The file that its guest's memory is mapped from: the template's, or its process image's. */
  memoryPath: string;
  /** Gives its channel; of one that nobody is connected to yet it is opened. */
  connect(deadline: Deadline): CloneChannel;
  /** Path of the root disk that it was warmed with and still has; undefined: a placeholder. */
  root: string | undefined;
  /** Lets its vCPUs run. */
  resume(deadline: Deadline): Promise<void>;
}

/** One that has just gone on from a process image, and that nobody has connected to. */
export interface ImageClone extends WarmClone {
  /** The main process of its application, and where its output goes on. */
  main: ApplicationPart["main"] | undefined;
}

/** Sets what a QEMU may take of the host: its guest's memory and its own, and its threads. */
export function limitQemu({ cgroup }: Slot, { memoryMiB }: Shape): void {
  cgroup.limit({ memoryBytes: memoryMiB * 2 ** 20 + QEMU_OVERHEAD_BYTES, pids: QEMU_PIDS });
}

/** Copies a QEMU of a template that stands still. @param isLast no other copy of it is wanted. @throws as {@link QemuProcess.copy}. */
export function copyQemu(
  { slots, records }: Host,
  parent: Parameters<typeof QemuProcess.copy>[2],
  { manifest }: LoadedTemplate,
  isLast = false,
): Promise<QemuProcess> {
  const shape = shapeOf(manifest.fingerprint);
  return QemuProcess.copy(slots, records, parent, (slot) => limitQemu(slot, shape), isLast);
}

/** Lets a QEMU's vCPUs run. */
export function letRun(qemu: QemuProcess, deadline: Deadline): Promise<void> {
  return qemu.run("cont", deadline);
}

/** Spawns a QEMU that blocks on its state socket. @param merge whether its memory may be merged with that of others. */
export function spawnBlocked(host: Host, template: LoadedTemplate, disks: DiskFiles, merge = false): QemuProcess {
  const shape = shapeOf(template.manifest.fingerprint);
  return QemuProcess.spawn(host.slots, host.records, (slot) => {
    limitQemu(slot, shape);
    grantDisks(slot, disks);
    return planFor(host, slot, {
      shape,
      memoryPath: template.memoryPath,
      memoryMode: cloneMemoryMode(host.qemu),
      disks,
      merge,
    });
  });
}

/**
 * Spawns a QEMU that becomes the process of an image.
 * @param image `basePath`: the image that this one's process has gone on from itself.
 * @param merge whether its memory may be merged with that of others.
 * @throws `qemu_spawn_failed`, `limit_reached`; nothing is left then.
 */
export function spawnFromImage(
  host: Host,
  { manifest }: LoadedTemplate,
  { imagePath, basePath }: { imagePath: string; basePath?: string | null },
  disks: DiskFiles,
  merge: boolean,
): QemuProcess {
  return QemuProcess.spawn(host.slots, host.records, (slot) => {
    limitQemu(slot, shapeOf(manifest.fingerprint));
    grantDisks(slot, disks);
    const { uid, cgroup } = slot;
    const { artifacts } = host.config;
    const launcher = { artifacts, uid, gid: tenantGid(host), procsFiles: cgroup.procsFiles, merge };
    return planFromImage(launcher, imagePath, basePath ?? undefined);
  });
}

/**
 * Makes a clone ready from nothing or from a QEMU blocked on its state socket.
 * @throws `template_corrupt`, `qemu_spawn_failed`, `qemu_exited`, `agent_not_ready` ..., each with its stage.
 */
export async function cloneFromTemplate(
  host: Host,
  template: LoadedTemplate,
  request: CloneRequest,
  prepared: QemuProcess | undefined,
  clock: StageClock,
  deadline: Deadline,
): Promise<Clone> {
  await using cleanup = new AsyncDisposableStack();
  let qemu = prepared;
  cleanup.defer(() => qemu?.kill());
  named("plan", () => template.check());
  clock.end("plan");
  qemu ??= named("spawn", () => spawnBlocked(host, template, request.disks, request.merge));
  clock.end("spawn");
  const spawned = qemu;
  const clone = await inStage("load", qemu, async () => {
    if (prepared !== undefined) await attach(prepared, disksToAttach(template, request.disks), deadline);
    return resumeInto(spawned, template, deadline);
  });
  const identified = applyIdentity(clone.agent, request, deadline);
  identified.catch(() => undefined);
  clock.end("load");
  await inStage("agent", qemu, () => clone.agent.ready);
  clock.end("agent");
  await inStage("identity", qemu, () => identified);
  clock.end("identity");
  cleanup.move();
  return clone;
}

/** Makes a warm clone ready, or one that has just been spawned as if it were one: vCPUs go on, identity applied. */
export async function cloneFromWarm(
  warm: WarmClone,
  request: CloneRequest,
  clock: StageClock,
  deadline: Deadline,
): Promise<Clone> {
  await using cleanup = new AsyncDisposableStack();
  const { qemu, template } = warm;
  cleanup.defer(() => qemu.kill());
  named("plan", () => template.check());
  if (clock.stages.spawn === undefined) clock.end("plan");
  const { agent, agentClosed, main } = warm.connect(deadline);
  const disks = disksToAttach(template, request.disks, warm.root);
  const resumed = attachAndResume(warm, disks, deadline);
  const identified = applyIdentity(agent, request, deadline);
  identified.catch(() => undefined);
  await inStage("load", qemu, () => resumed);
  clock.end("load");
  await inStage("identity", qemu, () => identified);
  clock.end("identity");
  cleanup.move();
  return { qemu, agent, template: { id: template.id, memoryPath: warm.memoryPath }, agentClosed, main };
}

/** QEMU takes its commands in order: the disks are in place before the guest goes on, and so before it carries out anything. */
async function attachAndResume(warm: WarmClone, disks: DiskFiles, deadline: Deadline): Promise<void> {
  const hasDisks = Object.keys(disks).length > 0;
  const session = hasDisks ? await warm.qemu.qmp(deadline) : undefined;
  grantDisks(warm.qemu.slot, disks);
  const attached = session && attachDisks(session, disks, deadline);
  await Promise.all([attached, warm.resume(deadline)]);
}

/** The root of a template's application is there since its QEMU was spawned, and that of a clone warmed for an image. */
function disksToAttach({ manifest }: LoadedTemplate, { root, ...others }: DiskFiles, warmRoot?: string): DiskFiles {
  const isThere = root === undefined || manifest.application !== undefined || root.path === warmRoot;
  return isThere ? others : { root, ...others };
}

/** Puts disks of a prepared QEMU on their files. */
async function attach(qemu: QemuProcess, disks: DiskFiles, deadline: Deadline): Promise<void> {
  if (Object.keys(disks).length === 0) return;
  grantDisks(qemu.slot, disks);
  await attachDisks(await qemu.qmp(deadline), disks, deadline);
}

/** Begins to talk to the agent, whose socket has been listening since before QEMU started, and writes the device state. */
export function resumeInto(qemu: QemuProcess, template: LoadedTemplate, deadline: Deadline): Clone {
  const channel = openAgent(qemu, deadline);
  const { application } = template.manifest;
  const main = application === undefined ? undefined : new ResumedMain(channel.agent, application.main);
  qemu.loadState(template.deviceState);
  return { qemu, template, main, ...channel };
}

/** Opens the agent's channel and turns its end into a promise. */
export function openAgent(qemu: QemuProcess, deadline: Deadline): Pick<Clone, "agent" | "agentClosed"> {
  const { promise: agentClosed, resolve: onClosed } = Promise.withResolvers<MayflyError>();
  return { agent: AgentClient.open(qemu.slot.agentPath, { deadline, onClosed }), agentClosed };
}

/** Runs a step against QEMU's exit, and names the stage in whatever it throws. */
export async function inStage<T>(stage: CloneStage, qemu: QemuProcess, step: () => T | Promise<T>): Promise<T> {
  try {
    return await qemu.untilExit(Promise.resolve(step()), stage);
  } catch (error) {
    throw withStage(stage, error);
  }
}

/** Runs a step that needs no QEMU, and names the stage in whatever it throws. */
export function named<T>(stage: CloneStage, step: () => T): T {
  try {
    return step();
  } catch (error) {
    throw withStage(stage, error);
  }
}

function withStage(stage: CloneStage, error: unknown): unknown {
  if (!(error instanceof MayflyError) || error.stage !== undefined) return error;
  const { code, message, details, vmId } = error;
  return new MayflyError(code, message, { stage, details, cause: error, ...(vmId === undefined ? {} : { vmId }) });
}
