/**
 * QEMU's own ways to keep a running VM's state and to go on from it: snapshots inside of a qcow2 file (`savevm`, `loadvm`; by QMP `snapshot-save`,
 * `snapshot-load`), and a migration into a file with a full restore (QMP `migrate` with `file:`, `-incoming`). All of the memory is written and read.
 */
import { chownSync, closeSync, fsyncSync, openSync, statSync, unlinkSync } from "node:fs";
import { MayflyError } from "../../src/contract/errors.ts";
import type { Shape } from "../../src/contract/machine.ts";
import type { Host } from "../../src/engine/host.ts";
import { escapeOption } from "../../src/machine/arguments.ts";
import type { QmpClient } from "../../src/qmp/client.ts";
import { type Deadline, nowMs } from "../../src/sys/deadline.ts";
import { makeOverlay } from "../../src/volume/overlay.ts";
import { type PlainVm, startPlainVm } from "./plain-vm.ts";

/** The disk in the qcow2 file is of no use but to have snapshots. */
const DISK_BYTES = 1 << 20;
const BLOCK_BYTES = 512;
const NODE = "states";
const TAG = "state";

/** What keeping a state took. */
export interface SaveTimes {
  /** While the VM stood still. */
  stoppedMs: number;
  /** From the request until all of it was on the disk. */
  durableMs: number;
  /** Bytes that the file takes on the disk. */
  bytes: number;
}

/** Saves a running VM's state into a new qcow2 file at `path`; the VM goes on. */
export async function savevm({ qemu }: PlainVm, path: string, deadline: Deadline): Promise<SaveTimes> {
  const qmp = await qemu.qmp(deadline);
  makeOverlay(path, DISK_BYTES);
  chownSync(path, qemu.slot.uid, -1);
  await qmp.execute("blockdev-add", qcow2Node(path), deadline);
  const startedMs = nowMs();
  // Events of a VM that is being saved come when it is over: what is told is from the request to the VM's going on.
  const resumed = qmp.waitForEvent(({ name }) => name === "RESUME", "the VM's going on", deadline).then(nowMs);
  await runJob(qmp, "snapshot-save", { tag: TAG, vmstate: NODE, devices: [NODE] }, deadline);
  const stoppedMs = (await resumed) - startedMs;
  syncFile(path);
  const durableMs = nowMs() - startedMs;
  await qmp.execute("blockdev-del", { "node-name": NODE }, deadline);
  return { stoppedMs, durableMs, bytes: allocatedBytes(path) };
}

/** Goes on from a qcow2 file in a new QEMU. @returns it, and the milliseconds from spawning it to its agent's answer. */
export async function loadvm(host: Host, shape: Shape, path: string, deadline: Deadline): Promise<[PlainVm, number]> {
  const startedMs = nowMs();
  const vm = startPlainVm(host, shape, ["-S"], deadline);
  try {
    chownSync(path, vm.qemu.slot.uid, -1);
    const qmp = await vm.qemu.qmp(deadline);
    await qmp.execute("blockdev-add", qcow2Node(path), deadline);
    await runJob(qmp, "snapshot-load", { tag: TAG, vmstate: NODE, devices: [NODE] }, deadline);
    await qmp.execute("cont", undefined, deadline);
    return [vm, await answered(vm, startedMs)];
  } catch (error) {
    await vm.qemu.kill();
    throw error;
  }
}

/** Migrates a running VM's state into a file at `path`; the VM runs until the last of it, and goes on afterwards. */
export async function migrateToFile({ qemu }: PlainVm, path: string, deadline: Deadline): Promise<SaveTimes> {
  const qmp = await qemu.qmp(deadline);
  // Whoever restores it runs as another user.
  closeSync(openSync(path, "w", 0o644));
  chownSync(path, qemu.slot.uid, -1);
  const capabilities = [{ capability: "events", state: true }];
  await qmp.execute("migrate-set-capabilities", { capabilities }, deadline);
  // The default keeps a network free for others.
  await qmp.execute("migrate-set-parameters", { "max-bandwidth": 2 ** 40 }, deadline);
  const startedMs = nowMs();
  const stopped = qmp.waitForEvent(({ name }) => name === "STOP", "the VM's stop", deadline).then(nowMs);
  const isOver = (status: unknown) => status === "completed" || status === "failed";
  const over = qmp.waitForEvent(
    ({ name, data }) => name === "MIGRATION" && isOver(data["status"]),
    "the end of the migration",
    deadline,
  );
  await qmp.execute("migrate", { uri: `file:${path}` }, deadline);
  const { data } = await over;
  if (data["status"] === "failed") throw new MayflyError("internal", "QEMU did not migrate into a file");
  await untilFinished(qmp, deadline);
  await qmp.execute("cont", undefined, deadline);
  const stoppedMs = nowMs() - (await stopped);
  syncFile(path);
  return { stoppedMs, durableMs: nowMs() - startedMs, bytes: allocatedBytes(path) };
}

/** Goes on from a migrated file in a new QEMU. @returns as {@link loadvm}. */
export async function restoreFromFile(
  host: Host,
  shape: Shape,
  path: string,
  deadline: Deadline,
): Promise<[PlainVm, number]> {
  const startedMs = nowMs();
  const vm = startPlainVm(host, shape, ["-incoming", `file:${escapeOption(path)}`], deadline);
  try {
    return [vm, await answered(vm, startedMs)];
  } catch (error) {
    await vm.qemu.kill();
    throw error;
  }
}

/** QEMU says that a migration is completed a moment before it takes `cont`, and nothing when it does: it is asked. */
async function untilFinished(qmp: QmpClient, deadline: Deadline): Promise<void> {
  for (;;) {
    const { status } = (await qmp.execute("query-status", undefined, deadline)) as { status: string };
    if (status !== "finish-migrate") return;
  }
}

async function answered({ qemu, agent }: PlainVm, startedMs: number): Promise<number> {
  await qemu.untilExit(agent.ready, "its guest's first answer");
  return nowMs() - startedMs;
}

function qcow2Node(path: string): Record<string, unknown> {
  return { driver: "qcow2", "node-name": NODE, file: { driver: "file", filename: path } };
}

/** Runs a job of QEMU's to its end. @throws MayflyError with what it failed with. */
async function runJob(
  qmp: QmpClient,
  command: string,
  options: Record<string, unknown>,
  deadline: Deadline,
): Promise<void> {
  const id = command;
  const concluded = qmp.waitForEvent(
    ({ name, data }) => name === "JOB_STATUS_CHANGE" && data["id"] === id && data["status"] === "concluded",
    `the end of ${command}`,
    deadline,
  );
  await qmp.execute(command, { "job-id": id, ...options }, deadline);
  await concluded;
  const jobs = (await qmp.execute("query-jobs", undefined, deadline)) as { id: string; error?: string }[];
  await qmp.execute("job-dismiss", { id }, deadline);
  const error = jobs.find((job) => job.id === id)?.error;
  if (error !== undefined) throw new MayflyError("internal", `${command} failed: ${error}`);
}

function syncFile(path: string): void {
  const fd = openSync(path, "r");
  fsyncSync(fd);
  closeSync(fd);
}

function allocatedBytes(path: string): number {
  return statSync(path).blocks * BLOCK_BYTES;
}

/** Removes a state's file. */
export function forget(path: string): void {
  unlinkSync(path);
}
