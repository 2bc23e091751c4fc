/** Set-up: brings a machine to the state where the daemon can run. Each step is skipped when done, and may be repeated. */

import { MayflyError } from "../contract/errors.ts";
import { waitForLock } from "../sys/lock.ts";
import { ownCommand } from "../sys/own-command.ts";
import { isWritable, makeDirectory, namesIn } from "../sys/paths.ts";
import { sweepUnfinished } from "../sys/publish.ts";
import { type Artifacts, artifactsDirectory, loadArtifacts, saveArtifacts } from "./artifacts.ts";
import { agentStep, launcherStep } from "./guest-programs.ts";
import { initramfsStep } from "./initramfs.ts";
import { busyboxStep, kernelStep } from "./kernel.ts";
import { imagePackagesStep, packagesStep } from "./packages-step.ts";
import { qemuStep } from "./qemu.ts";
import { rehearsalStep } from "./rehearsal.ts";
import { sweepBuilds } from "./source-build.ts";
import { standInsStep } from "./stand-ins.ts";
import type { OnProgress, Step } from "./step.ts";
import { complete, openWorkspace, type Workspace } from "./workspace.ts";

/** What {@link setup} may be told. */
export interface SetupOptions {
  /** State directory, `/var/lib/mayfly` unless `MAYFLY_STATE_DIR` says otherwise; the caller decides. */
  stateDir: string;
  onProgress?: OnProgress;
  /** Aborting it stops the set-up as soon as that is safe. */
  signal?: AbortSignal;
  /** Words after `mayfly` that root has to type when root is needed; `setup` unless told. */
  command?: string;
}

/** Another set-up of the same state directory may take so long. */
const LOCK_DEADLINE_MS = 1_800_000;

/** The steps of a set-up, in their order. */
export function setupSteps(workspace: Workspace): Step[] {
  return [
    packagesStep(),
    qemuStep(workspace),
    standInsStep(workspace),
    kernelStep(workspace),
    busyboxStep(workspace),
    agentStep(workspace),
    initramfsStep(workspace),
    rehearsalStep(workspace),
    launcherStep(workspace),
    imagePackagesStep(),
  ];
}

/**
 * Runs the steps that are not done yet and puts the artifacts in force. One at a time per state directory: a second call, of any
 * process, waits for the first and then finds all done.
 *
 * @returns the artifacts in force.
 * @throws MayflyError `root_required` (its remedy is the command that root has to run), `cancelled`, `tool_failed`, `disk_full`, and what a step throws; `stage` names the step.
 */
export async function setup(options: SetupOptions): Promise<Artifacts> {
  const onProgress = options.onProgress ?? (() => {});
  const workspace = await openWorkspace(options.stateDir);
  const steps = setupSteps(workspace);
  if (!(await anyPending(steps))) {
    for (const step of steps) onProgress({ kind: "skipped", step: step.name });
    return loadArtifacts(options.stateDir);
  }
  return await changeSetup(options, setupSteps);
}

/**
 * Runs steps on what is set up here and puts the result in force; with {@link setupSteps} behind a step of one's own, what depends
 * on that one is made again. One at a time per state directory.
 *
 * @returns the artifacts in force.
 * @throws what {@link setup} throws.
 */
export async function changeSetup(
  options: SetupOptions,
  stepsOf: (workspace: Workspace) => readonly Step[],
): Promise<Artifacts> {
  const onProgress = options.onProgress ?? (() => {});
  await makeStateDirectory(options);
  const onWait = () => onProgress({ kind: "started", step: "waiting", reason: "another set-up is at work" });
  const wait = options.signal === undefined ? { onWait } : { onWait, signal: options.signal };
  const path = `${artifactsDirectory(options.stateDir)}/lock`;
  using _lock = await waitForLock(path, { deadlineMs: LOCK_DEADLINE_MS, ...wait });
  const workspace = await openWorkspace(options.stateDir);
  for (const name of await namesIn(workspace.directory)) await sweepUnfinished(`${workspace.directory}/${name}`);
  await sweepBuilds(options.stateDir);
  await runSteps(stepsOf(workspace), options);
  await saveArtifacts(options.stateDir, complete(workspace));
  return loadArtifacts(options.stateDir);
}

/** Runs those of the steps that are pending, one after the other. @throws what they throw, with the step's name as stage. */
export async function runSteps(steps: readonly Step[], options: SetupOptions): Promise<void> {
  for (const step of steps) await runStep(step, options);
}

async function anyPending(steps: readonly Step[]): Promise<boolean> {
  for (const step of steps) {
    if ((await step.pending()) !== undefined) return true;
  }
  return false;
}

async function runStep(step: Step, options: SetupOptions): Promise<void> {
  const onProgress = options.onProgress ?? (() => {});
  const reason = await step.pending();
  if (reason === undefined) {
    onProgress({ kind: "skipped", step: step.name });
    return;
  }
  onProgress({ kind: "started", step: step.name, reason });
  const startedMs = performance.now();
  const report = (message: string, fraction?: number) =>
    onProgress({ kind: "activity", step: step.name, message, ...(fraction === undefined ? {} : { fraction }) });
  try {
    await step.run({ report, signal: options.signal });
  } catch (error) {
    throw withStage(error, step.name, options);
  }
  onProgress({ kind: "finished", step: step.name, elapsedMs: performance.now() - startedMs });
}

function withStage(error: unknown, stage: string, options: SetupOptions): unknown {
  if (!(error instanceof MayflyError)) return error;
  const isRoots = error.code === "root_required";
  const details = isRoots ? { ...error.details, remedy: commandForRoot(options) } : error.details;
  return new MayflyError(error.code, error.message, { stage, details, cause: error.cause });
}

async function makeStateDirectory(options: SetupOptions): Promise<void> {
  const directory = artifactsDirectory(options.stateDir);
  const remedy = commandForRoot(options);
  const made = await makeDirectory(directory).catch((error: unknown) => ({ error }));
  if (made === undefined && (await isWritable(directory))) return;
  throw new MayflyError("root_required", `Cannot write to ${directory}: that needs root. Run: ${remedy}`, {
    details: { remedy, path: directory },
    cause: made?.error,
  });
}

/** The one command that root has to run. */
function commandForRoot({ command = "setup" }: SetupOptions): string {
  const stateDir = process.env["MAYFLY_STATE_DIR"];
  const environment = stateDir ? `env MAYFLY_STATE_DIR='${stateDir}' ` : "";
  return `sudo ${environment}${ownCommand()} ${command}`;
}
