/** Files that the VM of a snapshot has changed: of its image, or since another snapshot. A QEMU is brought up for that, whose workload never runs. */

import { decodeChanges, type SurveyedChange } from "../agent/survey.ts";
import type { VmChange } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import type { Deadline } from "../sys/deadline.ts";
import { newId } from "../sys/ids.ts";
import { changesBetween, describeChanges } from "./changes.ts";
import type { EngineParts } from "./engine.ts";
import { emptyHeld } from "./fork.ts";
import type { Gate } from "./gate.ts";
import { Holdings } from "./holdings.ts";
import { newIdentity } from "./identity.ts";
import { launchFrom } from "./snapshot-launch.ts";
import type { ReadySnapshot } from "./snapshot-records.ts";
import { runSurvey } from "./survey.ts";

/**
 * Changed files by path.
 * @param from undefined: the image.
 * @throws `invalid_argument` for a VM that has no image, or whose images are not the same; what starting a VM throws.
 */
export async function changedFiles(
  parts: EngineParts,
  gate: Gate,
  to: ReadySnapshot,
  from: ReadySnapshot | undefined,
  deadline: Deadline,
): Promise<VmChange[]> {
  const image = rootOf(to);
  if (from !== undefined && rootOf(from) !== image) {
    const names = `${from.document.image} and ${to.document.image}`;
    throw new MayflyError("invalid_argument", `Cannot compare files of snapshots of VMs with other images: ${names}`);
  }
  const targets = to.vm.captured.vm.mounts.map(({ target }) => target);
  const now = await survey(parts, gate, to, deadline);
  if (from === undefined) return describeChanges(now, targets);
  return changesBetween(now, await survey(parts, gate, from, deadline), targets);
}

function rootOf({ document: { id, name }, vm: { captured, held } }: ReadySnapshot): string {
  if (captured.container !== null && held.disks.root !== undefined) return held.disks.root.path;
  const what = `Cannot list files of snapshot ${name ?? id}`;
  throw new MayflyError("invalid_argument", `${what}: its VM has no image that it could have changed`);
}

/** Looks into a copy of the VM, whose workload stays frozen. Nothing of it is left. */
async function survey(
  parts: EngineParts,
  gate: Gate,
  snapshot: ReadySnapshot,
  deadline: Deadline,
): Promise<SurveyedChange[]> {
  const { captured, held, main } = snapshot.vm;
  const vm = { ...captured.vm, id: newId("vm"), autoRemove: true };
  const holdings = new Holdings(emptyHeld(held));
  await parts.admission.admit({ memoryBytes: vm.memoryBytes }, deadline, () => undefined);
  try {
    holdings.addDisks(await parts.volumes.disks.copy(vm, held.disks));
    const revival = {
      ...{ kind: "clone" as const, snapshot, vm, request: {}, holdings, health: null, staysFrozen: true },
      identity: newIdentity(vm.hostname),
      goesOnAt: { output: main?.output ?? 0, error: main?.error ?? 0 },
    };
    const { launch, refill } = launchFrom(parts, gate, revival, deadline);
    const { clone } = await launch.start().finally(refill);
    try {
      return decodeChanges(await clone.qemu.untilExit(runSurvey(clone.agent, "changes", deadline, true), "a survey"));
    } finally {
      await clone.qemu.kill();
    }
  } finally {
    await holdings.release("never_started");
  }
}
