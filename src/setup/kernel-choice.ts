/** Which guest kernel is in force, and removing others. Templates name their kernel: those of another are built again on demand. */

import { dirname } from "node:path";
import { MayflyError } from "../contract/errors.ts";
import { waitForLock } from "../sys/lock.ts";
import { removePath } from "../sys/paths.ts";
import { withdrawTree } from "../sys/publish.ts";
import { type Artifacts, artifactsDirectory, describeKernel, readArtifacts } from "./artifacts.ts";
import { agentStep } from "./guest-programs.ts";
import { initramfsStep } from "./initramfs.ts";
import { busyboxStep, cloudKernel } from "./kernel.ts";
import { findKernel } from "./kernel-store.ts";
import { changeSetup, runSteps, type SetupOptions, setupSteps } from "./setup.ts";
import type { Step } from "./step.ts";
import { openWorkspace, type Workspace } from "./workspace.ts";

const LOCK_DEADLINE_MS = 1_800_000;

/**
 * Puts a kernel in force, with an initramfs for it; what else is not set up yet is set up. A daemon takes it for new VMs; those
 * that run go on.
 *
 * @param name of a kernel, or `cloud` or `minimal` for the newest of these; Debian's is downloaded if it is not there.
 * @throws MayflyError `kernel_not_found`, and what set-up throws.
 */
export async function useKernel(name: string, options: SetupOptions): Promise<Artifacts> {
  if (process.env["MAYFLY_KERNEL"]) {
    throw new MayflyError("invalid_argument", `Cannot put ${name} in force: MAYFLY_KERNEL is set, which goes first`, {
      details: { remedy: "unset MAYFLY_KERNEL" },
    });
  }
  if (name !== "cloud") await findKernel(options.stateDir, name);
  return changeSetup(options, (workspace) => [choiceStep(workspace, name), ...setupSteps(workspace)]);
}

/**
 * What is needed to use a kernel without putting it in force, as `MAYFLY_KERNEL` and `MAYFLY_INITRAMFS`: its initramfs is made.
 *
 * @param name as for {@link useKernel}, but nothing is downloaded.
 * @throws MayflyError `kernel_not_found`; `setup_required` where nothing is set up.
 */
export async function kernelAside(
  name: string,
  options: SetupOptions,
): Promise<{ kernelPath: string; initramfsPath: string }> {
  const { path } = await findKernel(options.stateDir, name);
  await readArtifacts(options.stateDir);
  using _lock = await waitForLock(`${artifactsDirectory(options.stateDir)}/lock`, { deadlineMs: LOCK_DEADLINE_MS });
  const workspace = await openWorkspace(options.stateDir);
  workspace.made.kernel = await describeKernel(path);
  await runSteps([busyboxStep(workspace), agentStep(workspace), initramfsStep(workspace)], options);
  return { kernelPath: path, initramfsPath: workspace.made.initramfs?.path ?? "" };
}

/** Step: fills `made.kernel` with the kernel of a name. */
function choiceStep(workspace: Workspace, name: string): Step {
  return {
    name: "guest kernel's choice",
    pending: async () => `${name} is asked for`,
    async run(context) {
      const path =
        name === "cloud" ? await cloudKernel(workspace, context) : (await findKernel(workspace.stateDir, name)).path;
      workspace.made.kernel = await describeKernel(path);
    },
  };
}

/**
 * Removes a kernel that is not in force.
 *
 * @throws MayflyError `kernel_not_found`; `resource_in_use` if it is in force.
 */
export async function removeKernel(name: string, options: SetupOptions): Promise<void> {
  const { stateDir, signal } = options;
  const wait = { deadlineMs: LOCK_DEADLINE_MS, ...(signal === undefined ? {} : { signal }) };
  await findKernel(stateDir, name);
  using _lock = await waitForLock(`${artifactsDirectory(stateDir)}/lock`, wait);
  const { path, kind } = await findKernel(stateDir, name);
  const { kernel } = await readArtifacts(stateDir).catch(() => ({ kernel: undefined }));
  if (kernel?.path === path) {
    const remedy = `mayfly kernel use ${kind === "cloud" ? "minimal" : "cloud"}`;
    throw new MayflyError("resource_in_use", `Cannot remove the guest kernel ${name}: it is the one in use`, {
      details: { path, remedy },
    });
  }
  await removePath(await withdrawTree(dirname(path)));
}
