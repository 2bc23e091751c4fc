/** Which QEMU is in force, and removing others. Templates name their QEMU: those of another are built again on demand. */

import { dirname } from "node:path";
import { MayflyError } from "../contract/errors.ts";
import { waitForLock } from "../sys/lock.ts";
import { removePath } from "../sys/paths.ts";
import { withdrawTree } from "../sys/publish.ts";
import { processesRunning } from "../sys/running-programs.ts";
import { type Artifacts, artifactsDirectory, readArtifacts } from "./artifacts.ts";
import { describeQemu } from "./qemu-binary.ts";
import { findLean, STOCK } from "./qemu-store.ts";
import { changeSetup, type SetupOptions, setupSteps } from "./setup.ts";
import type { Step } from "./step.ts";
import type { Workspace } from "./workspace.ts";

const LOCK_DEADLINE_MS = 1_800_000;

/**
 * Puts a QEMU in force; what is not set up yet is set up. VMs that run go on with theirs.
 *
 * @param name of a lean one, `lean` for the newest, or `stock` for Debian's.
 * @throws MayflyError `qemu_not_found`, and what set-up throws.
 */
export async function useQemu(name: string, options: SetupOptions): Promise<Artifacts> {
  if (process.env["MAYFLY_QEMU"]) {
    throw new MayflyError("invalid_argument", `Cannot put ${name} in force: MAYFLY_QEMU is set, which goes first`, {
      details: { remedy: "unset MAYFLY_QEMU" },
    });
  }
  if (name !== STOCK) await findLean(options.stateDir, name);
  return changeSetup(options, (workspace) => [...setupSteps(workspace), choiceStep(workspace, name)]);
}

/** Step: has `made.qemu` begin with the QEMU of a name. */
function choiceStep(workspace: Workspace, name: string): Step {
  return {
    name: "QEMU's choice",
    pending: async () => `${name} is asked for`,
    async run() {
      const stock = (workspace.made.qemu ?? []).filter(({ kind }) => kind !== "lean");
      const chosen =
        name === STOCK ? [] : [await describeQemu((await findLean(workspace.stateDir, name)).path, "built")];
      const [first, ...rest] = [...chosen, ...stock];
      if (first === undefined) throw new MayflyError("qemu_not_found", "Cannot use Debian's QEMU: it is not set up");
      workspace.made.qemu = [first, ...rest];
    },
  };
}

/**
 * Removes a lean QEMU that is not in force and that no VM runs.
 *
 * @throws MayflyError `qemu_not_found`; `invalid_argument` for Debian's, which set-up keeps; `resource_in_use`.
 */
export async function removeQemu(name: string, { stateDir, signal }: SetupOptions): Promise<void> {
  if (name.startsWith(STOCK)) {
    throw new MayflyError(
      "invalid_argument",
      `Cannot remove ${name}: set-up keeps Debian's QEMU, for all that may need it`,
    );
  }
  const wait = { deadlineMs: LOCK_DEADLINE_MS, ...(signal === undefined ? {} : { signal }) };
  await findLean(stateDir, name);
  using _lock = await waitForLock(`${artifactsDirectory(stateDir)}/lock`, wait);
  const { path } = await findLean(stateDir, name);
  const inForce = await readArtifacts(stateDir).then(
    ({ qemu }) => qemu.some((entry) => entry.path === path),
    () => false,
  );
  if (inForce) throw inUse(name, path, "it is the one for new VMs", `mayfly qemu use ${STOCK}`);
  const pids = processesRunning(path);
  if (pids.length > 0) throw inUse(name, path, `processes run it (${pids.length}): VMs, or prepared ones`, "mayfly ps");
  await removePath(await withdrawTree(dirname(dirname(path))));
}

function inUse(name: string, path: string, why: string, remedy: string): MayflyError {
  return new MayflyError("resource_in_use", `Cannot remove the QEMU ${name}: ${why}`, { details: { path, remedy } });
}
