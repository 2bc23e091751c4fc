/**
 * The artifacts that a VM is made of (QEMU, kernel, initramfs, agent, launcher) as set-up has left them in
 * `STATE/artifacts`, and the file `current.json` there that says which set is in force.
 */

import { MayflyError } from "../contract/errors.ts";
import { readOptional, readStart } from "../sys/paths.ts";
import { exists, publishFile, sha256File } from "../sys/publish.ts";
import { describeQemu } from "./qemu-binary.ts";

/** A QEMU program. The first in the list is the one to use. */
export interface QemuArtifact {
  path: string;
  /** As `--version` says, e.g. `10.0.2`. */
  version: string;
  /** Directories for `-L`; none for a QEMU that finds its firmware itself. */
  firmwarePaths: string[];
  /** `microvm` is Debian's smaller program that runs with KVM only; `lean` one that Mayfly built. */
  kind: "full" | "microvm" | "lean";
  /** `built` by Mayfly; `prefix`: Debian's, unpacked into a directory of Mayfly's. */
  origin: "system" | "prefix" | "environment" | "built";
  /** Directory of library stand-ins for it; empty if it does not run with any. */
  libraryPath?: string;
  /** Size and time of the file when it was looked at: another file there makes set-up look again. */
  sizeBytes: number;
  mtimeMs: number;
}

/** A file that is known by its content. */
export interface FileArtifact {
  path: string;
  /** Lower-case hexadecimal. */
  sha256: string;
}

/** Everything that set-up provides; all paths are absolute. */
export interface Artifacts {
  magic: "mayfly-artifacts";
  version: 1;
  qemu: [QemuArtifact, ...QemuArtifact[]];
  kernel: FileArtifact & { version: string };
  initramfs: FileArtifact;
  /** `buildId`: 32 hexadecimal digits, which the agent says in its hello. */
  agent: FileArtifact & { buildId: string };
  launcher: { path: string };
  /** Root file system (erofs) in which warm clones rehearse a container. */
  rehearsal: FileArtifact;
}

const REMEDY = "mayfly setup";

/** Where the artifacts of a state directory lie. */
export function artifactsDirectory(stateDir: string): string {
  return `${stateDir}/artifacts`;
}

/**
 * The artifacts in force, each checked to be there. `MAYFLY_QEMU`, `MAYFLY_KERNEL` and `MAYFLY_INITRAMFS` take the place of what set-up has made.
 *
 * @throws MayflyError `setup_required` (remedy: `mayfly setup`) if set-up has not run, was for another version of Mayfly, or a file is gone;
 * `qemu_not_found`, `kernel_not_found`, `artifact_missing` if the environment names something that is not there.
 */
export async function loadArtifacts(stateDir: string): Promise<Artifacts> {
  const current = await withOverrides(await readArtifacts(stateDir));
  const missing = [];
  for (const path of pathsOf(current)) {
    if (!(await exists(path))) missing.push(path);
  }
  if (missing.length > 0) throw setupRequired(`${missing.join(", ")} is missing`, missing);
  return current;
}

/** As {@link loadArtifacts}, but only what the file says: no check of the paths, no environment. */
export async function readArtifacts(stateDir: string): Promise<Artifacts> {
  const path = currentPath(stateDir);
  const text = await readOptional(path);
  if (text === undefined) throw setupRequired(`there is no ${path}`, []);
  const { artifacts, problems } = parseArtifacts(text);
  if (artifacts === undefined) throw setupRequired(`${path} is not usable: ${problems.join("; ")}`, problems);
  return artifacts;
}

/** Puts a set in force, atomically. */
export async function saveArtifacts(stateDir: string, artifacts: Artifacts): Promise<void> {
  await publishFile(currentPath(stateDir), `${JSON.stringify(artifacts, null, 2)}\n`);
}

/** Reads the text of `current.json`: the artifacts, or every problem found. */
export function parseArtifacts(text: string): { artifacts?: Artifacts; problems: string[] } {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return { problems: [`not JSON: ${error instanceof Error ? error.message : error}`] };
  }
  const problems: string[] = [];
  const root = record(value, "", problems);
  if (root["magic"] !== "mayfly-artifacts") problems.push(`magic is ${JSON.stringify(root["magic"])}`);
  if (root["version"] !== 1) problems.push(`version is ${JSON.stringify(root["version"])}, not 1`);
  const list = Array.isArray(root["qemu"]) ? root["qemu"] : [];
  if (list.length === 0) problems.push("qemu names none");
  for (const [index, entry] of list.entries()) checkQemu(entry, `qemu[${index}]`, problems);
  checkStrings(root["kernel"], "kernel", ["path", "version", "sha256"], problems);
  checkStrings(root["initramfs"], "initramfs", ["path", "sha256"], problems);
  checkStrings(root["agent"], "agent", ["path", "buildId", "sha256"], problems);
  checkStrings(root["launcher"], "launcher", ["path"], problems);
  checkStrings(root["rehearsal"], "rehearsal", ["path", "sha256"], problems);
  return isArtifacts(value, problems) ? { artifacts: value, problems } : { problems };
}

function isArtifacts(_value: unknown, problems: readonly string[]): _value is Artifacts {
  return problems.length === 0;
}

function record(value: unknown, where: string, problems: string[]): Record<string, unknown> {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return { ...value };
  problems.push(`${where || "the whole"} is not an object`);
  return {};
}

function checkStrings(value: unknown, where: string, keys: readonly string[], problems: string[]): void {
  const object = record(value, where, problems);
  for (const key of keys) {
    const entry = object[key];
    if (typeof entry !== "string" || entry === "") problems.push(`${where}.${key} is not a text`);
    else if (key === "path" && !entry.startsWith("/")) problems.push(`${where}.path ${entry} is not absolute`);
  }
}

function checkQemu(value: unknown, where: string, problems: string[]): void {
  checkStrings(value, where, ["path", "version", "kind", "origin"], problems);
  const { firmwarePaths, sizeBytes, mtimeMs } = record(value, where, []);
  if (!Array.isArray(firmwarePaths) || !firmwarePaths.every((path) => typeof path === "string")) {
    problems.push(`${where}.firmwarePaths is not a list of paths`);
  }
  if (typeof sizeBytes !== "number" || typeof mtimeMs !== "number") problems.push(`${where} has no size and time`);
}

/** The file that says which artifacts are in force. */
export function currentPath(stateDir: string): string {
  return `${artifactsDirectory(stateDir)}/current.json`;
}

function pathsOf(artifacts: Artifacts): string[] {
  const { qemu, kernel, initramfs, agent, launcher, rehearsal } = artifacts;
  return [...qemu, kernel, initramfs, agent, launcher, rehearsal].map(({ path }) => path);
}

async function withOverrides(artifacts: Artifacts): Promise<Artifacts> {
  const { MAYFLY_QEMU: qemuPath, MAYFLY_KERNEL: kernelPath, MAYFLY_INITRAMFS: initramfsPath } = process.env;
  const result = { ...artifacts };
  if (qemuPath) {
    // One that set-up knows keeps its stand-ins.
    const known = artifacts.qemu.find(({ path }) => path === qemuPath);
    const named: QemuArtifact = known ?? (await describeQemu(qemuPath, "environment"));
    result.qemu = [named, ...artifacts.qemu.filter((entry) => entry !== known)];
  }
  if (kernelPath) result.kernel = await describeKernel(kernelPath);
  if (initramfsPath) {
    if (!(await exists(initramfsPath))) throw notThere("artifact_missing", "MAYFLY_INITRAMFS", initramfsPath);
    result.initramfs = { path: initramfsPath, sha256: await sha256File(initramfsPath) };
  }
  return result;
}

/**
 * What a kernel file is. The version is in its header (Linux' Documentation/arch/x86/boot.rst: `HdrS` at 0x202, the
 * offset of the version's text less 0x200 at 0x20e).
 *
 * @throws MayflyError `kernel_not_found` if there is none or it is not an x86 bzImage.
 */
export async function describeKernel(path: string): Promise<Artifacts["kernel"]> {
  if (!(await exists(path))) throw notThere("kernel_not_found", "MAYFLY_KERNEL", path);
  const head = await readStart(path, 65536);
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
  if (head.length < 0x400 || view.getUint32(0x202, true) !== 0x53726448) {
    throw new MayflyError("kernel_not_found", `Cannot use ${path} as a kernel: it is not an x86 bzImage`, {
      details: { path },
    });
  }
  const at = view.getUint16(0x20e, true) + 0x200;
  const text = new TextDecoder("latin1").decode(head.subarray(at, at + 128));
  return { path, version: text.split(/[ \0]/)[0] ?? "unknown", sha256: await sha256File(path) };
}

function notThere(code: "artifact_missing" | "kernel_not_found", variable: string, path: string): MayflyError {
  return new MayflyError(code, `Cannot use ${path}, which ${variable} names: there is no such file`, {
    details: { path },
  });
}

function setupRequired(why: string, problems: readonly string[]): MayflyError {
  return new MayflyError("setup_required", `Mayfly is not set up here: ${why}. Run: ${REMEDY}`, {
    details: { remedy: REMEDY, ...(problems.length > 0 ? { problems } : {}) },
  });
}
