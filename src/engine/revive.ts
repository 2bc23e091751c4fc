/**
 * A VM that goes on in another QEMU from a state that was taken: the pages that differ from its template are written into that QEMU's memory
 * before it has loaded its devices; then it is made itself, as every clone.
 */
import { MayflyError } from "../contract/errors.ts";
import type { DiskFiles } from "../machine/devices/disk.ts";
import type { Deadline } from "../sys/deadline.ts";
import { type GuestMapping, guestMapping } from "../sys/process-memory.ts";
import type { LoadedTemplate } from "../template/store.ts";
import type { GuestObjects } from "./capture.ts";
import { type Clone, inStage, named, openAgent, spawnBlocked } from "./clone.ts";
import { attachDisks, grantDisks } from "./disks.ts";
import type { Gate } from "./gate.ts";
import type { Host } from "./host.ts";
import { applyIdentity, type GuestSetup } from "./identity.ts";
import { dropOutput, releaseRest } from "./other-processes.ts";
import type { Pool } from "./pool.ts";
import type { QemuProcess } from "./qemu-process.ts";
import { ResumedMain } from "./resumed-main.ts";
import type { StageClock } from "./stages.ts";
import { templateDisks } from "./warmed.ts";

/** A QEMU that waits for a state, its memory mapped and its root disk in place. */
export interface ReadyQemu {
  qemu: QemuProcess;
  mapping: GuestMapping;
  path: "pool" | "cold";
}

/** What {@link readyQemu} works with. */
export interface ReviveContext {
  host: Host;
  gate: Gate;
  pool: Pool | undefined;
  /** Whether its memory may be merged with that of others: such a QEMU is not in the pool. */
  merge?: boolean | undefined;
}

/** A state to go on from. */
export interface RevivedState extends GuestObjects {
  devices: Uint8Array;
  /** Writes the pages into the guest's memory. */
  writePages: (pid: number, mapping: GuestMapping) => Promise<void>;
}

/**
 * Takes a QEMU from the pool or spawns one. One of the pool that has died meanwhile is replaced.
 * @param root disks whose files are known by now; the others follow in {@link revive}.
 * @throws `template_corrupt`, `qemu_spawn_failed`, `qemu_exited` ...; nothing is left then.
 */
export async function readyQemu(
  { host, gate, pool, merge = false }: ReviveContext,
  template: LoadedTemplate,
  root: DiskFiles,
  deadline: Deadline,
): Promise<ReadyQemu> {
  template.check();
  const atSpawn = templateDisks(host.config.stateDir, template);
  const missing = atSpawn.root === undefined ? root : {};
  const prepared = merge ? undefined : pool?.takeBlocked();
  if (prepared !== undefined) {
    try {
      return await made(prepared, template, missing, "pool", deadline);
    } catch (error) {
      if (!(error instanceof MayflyError) || error.kind !== "unavailable") throw error;
    }
  }
  using _place = await gate.enter();
  return made(spawnBlocked(host, template, atSpawn, merge), template, missing, "cold", deadline);
}

/** Waits until a QEMU has made its machine, which it has when it greets: then its memory is mapped. */
async function made(
  qemu: QemuProcess,
  template: LoadedTemplate,
  disks: DiskFiles,
  path: ReadyQemu["path"],
  deadline: Deadline,
): Promise<ReadyQemu> {
  try {
    await attach(qemu, disks, deadline);
    return { qemu, mapping: guestMapping(qemu.pid, template.memoryPath), path };
  } catch (error) {
    await qemu.kill();
    throw error;
  }
}

async function attach(qemu: QemuProcess, disks: DiskFiles, deadline: Deadline): Promise<void> {
  grantDisks(qemu.slot, disks);
  await qemu.untilExit(attachDisks(await qemu.qmp(deadline), disks, deadline), "spawn");
}

/**
 * Brings a state to life in a QEMU that is ready for it. The QEMU is gone if that fails.
 * @param disks those that {@link readyQemu} has not got.
 * @throws whatever goes wrong, with its stage.
 */
export async function revive(
  { qemu, mapping }: ReadyQemu,
  template: Clone["template"],
  state: RevivedState,
  setup: GuestSetup & { disks: DiskFiles },
  clock: StageClock,
  deadline: Deadline,
): Promise<Clone> {
  await using cleanup = new AsyncDisposableStack();
  cleanup.defer(() => qemu.kill());
  await inStage("load", qemu, () =>
    Promise.all([state.writePages(qemu.pid, mapping), attach(qemu, setup.disks, deadline)]),
  );
  const load = () => qemu.loadState(state.devices);
  const clone = await goOn(qemu, template, state, load, setup, clock, deadline);
  cleanup.move();
  return clone;
}

/**
 * Has a guest go on in a QEMU, and makes it a VM of its own. The QEMU is gone if that fails.
 * @param load has the guest run; its agent's channel is open by then.
 * @throws whatever goes wrong, with its stage.
 */
export async function goOn(
  qemu: QemuProcess,
  template: Clone["template"],
  objects: GuestObjects,
  load: () => void | Promise<void>,
  setup: GuestSetup,
  clock: StageClock,
  deadline: Deadline,
): Promise<Clone> {
  await using cleanup = new AsyncDisposableStack();
  cleanup.defer(() => qemu.kill());
  const channel = named("load", () => openAgent(qemu, deadline));
  const main = objects.main === null ? undefined : new ResumedMain(channel.agent, objects.main);
  const dropped = objects.others.map((other) => dropOutput(channel.agent, other));
  const loaded = inStage("load", qemu, load);
  const identified = applyIdentity(channel.agent, setup, deadline);
  identified.catch(() => undefined);
  await loaded;
  clock.end("load");
  const hello = await inStage("agent", qemu, () => channel.agent.ready);
  clock.end("agent");
  named("agent", () => requireFrozen(hello, template.id));
  releaseRest(channel.agent, hello, dropped, objects.main?.object);
  await inStage("identity", qemu, () => identified);
  clock.end("identity");
  cleanup.move();
  return { qemu, template, main, ...channel };
}

/** What was taken was frozen, or else it has run on before it had an identity of its own. */
function requireFrozen({ identityPending }: { identityPending: boolean }, templateId: string): void {
  if (identityPending) return;
  throw new MayflyError("state_load_failed", `A guest on template ${templateId} was not frozen when it was loaded`);
}
