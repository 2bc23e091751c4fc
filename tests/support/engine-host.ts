/** For tests against real QEMU: what set-up has made here, a folder of this run's own, and the template that all engines start from. */
import { describe } from "bun:test";
import { appendFileSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { cp } from "node:fs/promises";
import { join } from "node:path";
import type { Shape } from "../../src/contract/machine.ts";
import { groupName, openEngine } from "../../src/engine/open.ts";
import { type Artifacts, loadArtifacts } from "../../src/setup/artifacts.ts";
import { Deadline } from "../../src/sys/deadline.ts";
import { stateDirectory } from "../../src/sys/directories.ts";
import { runTool } from "../../src/sys/tool.ts";

const found = await findArtifacts();

/** Why nothing can be run here; undefined if it can. */
export const unavailable: string | undefined = found.reason;

async function findArtifacts(): Promise<{ artifacts?: Artifacts; reason?: string }> {
  if (process.geteuid?.() !== 0) return { reason: "starting VMs needs root" };
  try {
    return { artifacts: await loadArtifacts(stateDirectory()) };
  } catch (error) {
    return { reason: error instanceof Error ? error.message : String(error) };
  }
}

/** The artifacts; only where {@link unavailable} is undefined. */
export function hostArtifacts(): Artifacts {
  if (found.artifacts === undefined) throw new Error(`no artifacts: ${found.reason}`);
  return found.artifacts;
}

/** A group of tests that need real VMs; where there can be none, they are skipped and say why. */
export function describeVms(name: string, body: () => void): void {
  if (unavailable === undefined) describe(name, body);
  else describe.skip(`${name} (${unavailable})`, body);
}

/** Folder of everything that this run makes. Memory files belong on a disk, which /var/tmp is and /tmp need not be. */
export const RUN_ROOT = `/var/tmp/mayfly-test-${process.pid}`;

/** What removes everything once the read end of its pipe says that this process is gone. */
const JANITOR = `
trap '' INT TERM HUP
cat >/dev/null
for round in 1 2 3; do
  for p in /proc/[0-9]*; do
    [ "$p" = "/proc/$$" ] || ! grep -qs "$1" "$p/cmdline" || kill -9 "\${p#/proc/}"
  done
done
for mount in $(grep -o "$1[^ ]*" /proc/self/mounts); do umount -l "$mount"; done
for group in $(cat "$1/groups"); do
  for top in /sys/fs/cgroup /sys/fs/cgroup/*; do rmdir "$top/$group"/* "$top/$group"; done
done
rm -rf "$1"
`;

let claimed = false;

/** Makes the folder, and has it removed with whatever still runs from it when this process ends, however it ends. */
function claimRoot(): void {
  if (claimed) return;
  claimed = true;
  mkdirSync(RUN_ROOT, { recursive: true, mode: 0o711 });
  Bun.spawn(["sh", "-c", JANITOR, "sh", RUN_ROOT], {
    stdio: ["pipe", "ignore", "ignore"],
    detached: true,
    env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" },
  }).unref();
}

/** Has the control group of an engine on this state directory removed in the end. @returns its name. */
export function noteGroup(stateDir: string): string {
  const name = groupName(stateDir);
  appendFileSync(join(RUN_ROOT, "groups"), `${name}\n`);
  return name;
}

let made = 0;

/** A new directory that VMs' uids can pass through; gone with this process. */
export function newDirectory(name: string): string {
  claimRoot();
  made += 1;
  const path = join(RUN_ROOT, `${made}${name}`);
  mkdirSync(path, { mode: 0o711 });
  return path;
}

/** The shape of VMs that ask for nothing. */
export const SMALL: Shape = { memoryMiB: 128, vcpus: 1 };

const seeds = new Map<string, Promise<string>>();

/** A state directory with the template of a shape in it, made once in this run. Nobody changes it. */
export function seed(shape: Shape = SMALL): Promise<string> {
  const key = `${shape.memoryMiB}-${shape.vcpus}-${shape.profile ?? "full"}`;
  let made = seeds.get(key);
  if (made === undefined) {
    made = buildSeed(shape);
    seeds.set(key, made);
  }
  return made;
}

async function buildSeed(shape: Shape): Promise<string> {
  const stateDir = newDirectory("seed");
  const directories = { stateDir, runDir: newDirectory("seed-run") };
  const pool = { blocked: 0, warm: 0 };
  noteGroup(stateDir);
  const engine = await openEngine({ ...directories, artifacts: hostArtifacts(), accelerator: "tcg", pool });
  const { memoryMiB, vcpus: cpus, profile = "full" } = shape;
  const request = { memoryBytes: memoryMiB * 2 ** 20, cpus, profile };
  await engine.buildTemplate(request, { deadline: Deadline.after(60_000) });
  await engine.close();
  return stateDir;
}

/** Puts a copy of a shape's template into a state directory; holes stay holes. */
export async function plantTemplate(stateDir: string, shape: Shape = SMALL): Promise<void> {
  const from = join(await seed(shape), "templates");
  mkdirSync(join(stateDir, "templates"), { recursive: true, mode: 0o755 });
  for (const id of readdirSync(from)) {
    await runTool(["cp", "-a", "--sparse=always", join(from, id), join(stateDir, "templates", id)]);
  }
}

/** Puts the artifacts' description where a daemon on this state directory looks for it. */
export async function plantArtifacts(stateDir: string): Promise<void> {
  const from = join(stateDirectory(), "artifacts", "current.json");
  mkdirSync(join(stateDir, "artifacts"), { recursive: true });
  await cp(from, join(stateDir, "artifacts", "current.json"));
}

/** Command lines of all processes of this host that mention `text`, by pid; this process and its janitor are left out. */
export function processesMentioning(text: string): Map<number, string[]> {
  const all = new Map<number, string[]>();
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name) || Number(name) === process.pid) continue;
    const command = readProc(`/proc/${name}/cmdline`).split("\0");
    if (command.some((part) => part.includes(text)) && command.at(-2) !== RUN_ROOT) all.set(Number(name), command);
  }
  return all;
}

/** A file of /proc as text; empty when it is gone. */
export function readProc(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return "";
  }
}
