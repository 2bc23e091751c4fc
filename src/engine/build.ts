/** Building a base template: a cold boot on a shared memory file, warmed, trimmed, saved, published. */
import { AgentClient } from "../agent/client.ts";
import { MayflyError } from "../contract/errors.ts";
import type { Shape } from "../contract/machine.ts";
import { kernelCommandLine } from "../machine/arguments.ts";
import { fingerprintHash } from "../machine/fingerprint.ts";
import { type Deadline, pause } from "../sys/deadline.ts";
import { newId } from "../sys/ids.ts";
import { freeBytes } from "../sys/paths.ts";
import { tailOfFile } from "../sys/process.ts";
import { exists } from "../sys/publish.ts";
import type { LoadedTemplate, TemplateStore, TemplateWorkspace } from "../template/store.ts";
import { LIMITS_MS } from "./config.ts";
import { fingerprintFor, type Host, planFor, tenantGid } from "./host.ts";
import { identityRequest, newIdentity } from "./identity.ts";
import { QemuProcess } from "./qemu-process.ts";
import { stopInKernel } from "./stop.ts";
import { runToEnd, WARM_COMMAND, WARM_HOSTNAME } from "./warm-up.ts";

const CONSOLE_TAIL_BYTES = 4096;
/** Most bytes of free guest memory that are zeroed before a template is saved: what a boot can have touched and freed. */
export const TRIM_BYTES = 512 * 2 ** 20;

/** A disk with less than this free is full: file systems keep a little for themselves. */
const FULL_BYTES = 2 ** 20;

/** Runs of the warm-up command: the second one finds what the first has made. */
const WARM_ROUNDS = 3;
const SETTLE_MS = 1500;
/** How often a template's guest is stopped anew when it was not where it should be. */
const STOPS = 3;

/** A parent VM that was booted and whose agent answers. */
interface BootedParent {
  qemu: QemuProcess;
  agent: AgentClient;
}

/**
 * Builds and publishes a base template of a shape.
 * @throws `boot_failed` with the console's tail; whatever QEMU or the disk do wrong. Nothing is left then.
 */
export async function buildBaseTemplate(
  host: Host,
  store: TemplateStore,
  shape: Shape,
  onStep: (step: string) => void,
  deadline: Deadline,
): Promise<LoadedTemplate> {
  const fingerprint = fingerprintFor(host, shape);
  const id = newId("tpl");
  // The parent's uid has to own the memory file before its slot is known: it runs as the first uid of all, which no VM has.
  const parts = {
    id,
    fingerprint,
    fingerprintHash: fingerprintHash(fingerprint),
    gid: tenantGid(host),
    ownerUid: builderUid(host),
  };
  await store.publish(parts, async (workspace) => {
    try {
      await makeParent(host, shape, workspace, onStep, deadline);
      return undefined;
    } catch (error) {
      throw (await fullDisk(workspace, error)) ?? error;
    }
  });
  return store.load(id);
}

/** Boots a parent on the workspace's memory file, prepares it, saves it and lets it quit. */
async function makeParent(
  host: Host,
  shape: Shape,
  workspace: TemplateWorkspace,
  onStep: (step: string) => void,
  deadline: Deadline,
): Promise<void> {
  onStep("booting the guest");
  await using parent = await bootParent(host, shape, workspace, deadline);
  onStep("warming the guest");
  await warm(parent.agent, WARM_ROUNDS, deadline);
  onStep("trimming the guest's memory");
  await parent.agent.sync(deadline);
  await parent.agent.zeroPortBuffers(deadline);
  await parent.agent.trim(TRIM_BYTES, deadline);
  // Trimming forks the agent, which leaves its pages copy-on-write: once more, so that no clone has to break that.
  await warm(parent.agent, 1, deadline);
  await parent.agent.freeze(deadline);
  onStep("letting the guest settle");
  await settle();
  onStep("saving the template");
  await saveAndQuit(parent, workspace, shape, deadline);
}

/** A parent whose memory file finds no space gets SIGBUS, which says nothing of the disk. */
export async function fullDisk({ memoryPath }: TemplateWorkspace, cause: unknown): Promise<MayflyError | undefined> {
  if ((await freeBytes(memoryPath)) >= FULL_BYTES) return undefined;
  const why = cause instanceof Error ? cause.message : String(cause);
  return new MayflyError("disk_full", `Cannot build a template: no space left for ${memoryPath} (${why})`, {
    details: { path: memoryPath },
    cause,
  });
}

/** Uid of the QEMU that builds templates: it alone may write a memory file. */
export function builderUid(host: Host): number {
  return host.config.uidBase;
}

/** Boots a guest on the workspace's memory file. Disposing it kills its QEMU. */
export async function bootParent(
  host: Host,
  shape: Shape,
  workspace: TemplateWorkspace,
  deadline: Deadline,
): Promise<BootedParent & AsyncDisposable> {
  const { artifacts } = host.config;
  const boot = {
    kernelPath: artifacts.kernel.path,
    initramfsPath: artifacts.initramfs.path,
    commandLine: kernelCommandLine(host.accelerator, host.tscKHz),
  };
  const qemu = QemuProcess.spawn(host.slots, host.records, (slot) => {
    const parts = { shape, memoryPath: workspace.memoryPath, memoryMode: "shared" as const, disks: {}, boot };
    return planFor(host, { ...slot, uid: builderUid(host) }, { ...parts, consolePath: workspace.consolePath });
  });
  qemu.dropStateSocket();
  const within = deadline.within(LIMITS_MS.boot);
  const agent = AgentClient.open(qemu.slot.agentPath, { deadline: within });
  try {
    await qemu.untilExit(agent.ready, "booting");
    return { qemu, agent, [Symbol.asyncDispose]: () => qemu.kill() };
  } catch (error) {
    const consoleTail = tailOfFile(workspace.consolePath, CONSOLE_TAIL_BYTES);
    await qemu.kill();
    throw (await missingProgram(host)) ?? bootFailed(error, consoleTail);
  }
}

/** What set-up has made and somebody has removed since, if that is why. */
async function missingProgram({ qemu, config }: Host): Promise<MayflyError | undefined> {
  const { kernel, initramfs } = config.artifacts;
  const needed = [
    { path: qemu.path, code: "qemu_not_found" },
    { path: kernel.path, code: "kernel_not_found" },
    { path: initramfs.path, code: "artifact_missing" },
  ] as const;
  for (const { path, code } of needed) {
    if (await exists(path)) continue;
    const details = { path, remedy: "mayfly setup" };
    return new MayflyError(code, `Cannot boot the guest: ${path} is gone. Run: ${details.remedy}`, { details });
  }
  return undefined;
}

function bootFailed(error: unknown, consoleTail: string): unknown {
  if (error instanceof MayflyError && error.code === "cancelled") return error;
  const why =
    error instanceof MayflyError && error.code !== "agent_not_ready" ? error.message : `the guest agent did not answer`;
  const last = consoleTail.trimEnd().split("\n").at(-1) ?? "";
  const details = error instanceof MayflyError ? error.details : {};
  return new MayflyError(
    "boot_failed",
    `Cannot boot the guest: ${why}. The console ends with: ${last || "(nothing)"}`,
    {
      stage: "boot",
      cause: error,
      details: { ...details, consoleTail },
    },
  );
}

/** Runs what each clone will run, so that caches and lazily made kernel state are in the template. */
async function warm(agent: AgentClient, rounds: number, deadline: Deadline): Promise<void> {
  for (let round = 0; round < rounds; round++) {
    await agent.identity(identityRequest(newIdentity(WARM_HOSTNAME)), deadline);
    await agent.ping(deadline);
    await runToEnd(agent, WARM_COMMAND, deadline);
  }
}

/**
 * Lets the guest finish what it has deferred (RCU callbacks, work queues, timers): what is pending when a template is saved
 * runs in every clone. Nothing tells when it is done; a second and a half of idling is enough on a slow machine.
 */
export function settle(): Promise<void> {
  return pause(SETTLE_MS);
}

/**
 * Stops the parent, saves its devices, and lets it quit so that its memory file is complete.
 *
 * Clones go on from the very instruction that it is stopped at, so that is chosen (docs/adr/0041-where-a-template-stops.md): another freeze just
 * before makes the agent expect the stop, and read; of one vCPU the guest has been told that the host is gone, and has not got round to it; it is
 * in the kernel. On a host that was too slow for that it is tried again; in the end it is stopped wherever it is, its clones are then a little
 * slower, and nothing else.
 */
export async function saveAndQuit(
  { qemu, agent }: { qemu: QemuProcess; agent: AgentClient },
  { deviceStatePath }: TemplateWorkspace,
  { vcpus }: Shape,
  deadline: Deadline,
): Promise<void> {
  const qmp = await qemu.qmp(deadline);
  for (let expecting = agent, attempt = 1; ; attempt++) {
    await expecting.freeze(deadline);
    if (vcpus === 1) expecting.close();
    // With several, one that is not the agent's may be anywhere.
    if ((await stopInKernel(qmp, deadline)) || vcpus > 1 || attempt === STOPS) break;
    await qmp.execute("cont", undefined, deadline);
    expecting = await AgentClient.connect(qemu.slot.agentPath, { deadline });
  }
  await qmp.execute("xen-save-devices-state", { filename: deviceStatePath, live: false }, deadline);
  // QEMU may close the session before its answer is read: its exit is what counts.
  await Promise.allSettled([qmp.execute("quit", undefined, deadline)]);
  await deadline.race(qemu.exited, "the end of the template's QEMU");
}
