/** What `mayfly doctor` looks at. */
import { clientOver } from "../client/client.ts";
import { bunTransport } from "../client/transport-bun.ts";
import type { SystemInfo } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import { type Artifacts, loadArtifacts } from "../setup/artifacts.ts";
import { isRecentQemu, MINIMUM_QEMU } from "../setup/qemu-binary.ts";
import { daemonSocketPath, runDirectory, stateDirectory } from "../sys/directories.ts";
import { availableMemoryBytes, cgroupControllers, hostCpuCount, hostMemoryBytes } from "../sys/host.ts";
import { merging } from "../sys/memory-merging.ts";
import { freeBytes, isRoot } from "../sys/paths.ts";
import { findTool, packageOf } from "../sys/tool.ts";
import { parseHost } from "./connection.ts";
import { formatBytes } from "./sizes.ts";
import type { GlobalOptions } from "./specification.ts";

/** One thing looked at. `missing` is required; `warning` limits something; `note` is only said. */
export interface Finding {
  name: string;
  state: "ok" | "note" | "warning" | "missing";
  detail: string;
  /** The command that puts it right. */
  remedy?: string;
}

/** What may be looked at. */
export interface ExaminationOptions {
  global: GlobalOptions;
  /** Boot guests to find out about accelerators, where no daemon knows. */
  probe: boolean;
}

/** Programs run by commands that not everybody uses, and peers of benchmarks. */
const TOOLS: readonly { program: string; use: string; package?: string; required: boolean }[] = [
  { program: "mkfs.erofs", use: "importing images", required: true },
  { program: "mkfs.ext4", use: "volumes", required: true },
  { program: "tar", use: "importing images, cp", required: true },
  { program: "flock", use: "starting once", package: "util-linux", required: true },
  { program: "xz", use: "images in .tar.xz", required: false },
  { program: "zstd", use: "images in .tar.zst and layers with zstd", required: false },
  { program: "skopeo", use: "pull and build", required: false },
  { program: "buildah", use: "build", required: false },
  { program: "runc", use: "comparisons in bench", package: "runc", required: false },
  { program: "crun", use: "comparisons in bench", package: "crun", required: false },
  { program: "podman", use: "comparisons in bench", package: "podman", required: false },
];
const NO_LEAN: Finding = {
  name: "QEMU",
  state: "note",
  detail: "no lean one in use, with which VMs start sooner and keep less memory",
  remedy: "mayfly qemu build",
};
const LEAST_FREE_BYTES = 2 * 1024 ** 3;

/** Looks at everything, in the order in which it is shown. Never throws for what it finds. */
export async function examine({ global, probe }: ExaminationOptions): Promise<Finding[]> {
  const info = await daemonInfo(global);
  const artifacts = await loadArtifacts(stateDirectory()).catch((error: unknown) => asError(error));
  return [
    rights(info),
    daemon(info),
    ...(artifacts instanceof MayflyError ? [setupMissing(artifacts)] : fromArtifacts(artifacts)),
    ...(await accelerators(info, artifacts, probe)),
    controlGroups(),
    memory(),
    await disk(),
    sameMemory(),
    ...tools(),
  ];
}

async function daemonInfo(global: GlobalOptions): Promise<SystemInfo | MayflyError> {
  const address = parseHost(global.host) ?? { socketPath: daemonSocketPath(runDirectory()) };
  const client = clientOver(bunTransport({ address, token: process.env["MAYFLY_TOKEN"] || undefined }));
  return client.system.info().catch((error: unknown) => asError(error));
}

function asError(error: unknown): MayflyError {
  if (error instanceof MayflyError) return error;
  return new MayflyError("internal", error instanceof Error ? error.message : String(error));
}

function rights(info: SystemInfo | MayflyError): Finding {
  const name = "root";
  if (isRoot()) return { name, state: "ok", detail: "this is root" };
  if (!(info instanceof MayflyError)) return { name, state: "ok", detail: "not root, but the daemon may be used" };
  return {
    name,
    state: "missing",
    detail: "the daemon has to run as root, which gives each VM a uid",
    remedy: "sudo mayfly daemon",
  };
}

function daemon(info: SystemInfo | MayflyError): Finding {
  const name = "daemon";
  if (!(info instanceof MayflyError)) {
    return {
      name,
      state: "ok",
      detail: `version ${info.version}, pid ${info.pid}, ${info.vms} VMs, ${formatBytes(info.daemonRssBytes)} resident`,
    };
  }
  if (info.code === "daemon_unreachable")
    return { name, state: "note", detail: "not running; commands start it when they need it" };
  return { name, state: "warning", detail: info.message };
}

function setupMissing(error: MayflyError): Finding {
  const remedy = error.details.remedy ?? "mayfly setup";
  return { name: "set-up", state: "missing", detail: error.message, remedy };
}

function fromArtifacts({ qemu, kernel, initramfs, agent, launcher }: Artifacts): Finding[] {
  const chosen = qemu[0];
  return [
    ...qemu.map((binary): Finding => {
      const detail = `${binary.version} (${binary.kind}, ${binary.origin}) ${binary.path}`;
      const note = binary === chosen ? "" : "; not used";
      if (!isRecentQemu(binary.version)) {
        const why = `older than ${MINIMUM_QEMU.join(".")}: a clone has its template's memory file open for writing`;
        return { name: "QEMU", state: binary === chosen ? "warning" : "note", detail: `${detail}: ${why}${note}` };
      }
      if (binary.kind === "microvm") return { name: "QEMU", state: "note", detail: `${detail}: runs with KVM only` };
      return { name: "QEMU", state: "ok", detail: `${detail}${note}` };
    }),
    ...(qemu.some(({ kind }) => kind === "lean") ? [] : [NO_LEAN]),
    { name: "kernel", state: "ok", detail: `${kernel.version} ${kernel.path}` },
    { name: "initramfs", state: "ok", detail: initramfs.path },
    { name: "guest agent", state: "ok", detail: `build ${agent.buildId}` },
    { name: "launcher", state: "ok", detail: launcher.path },
  ];
}

async function accelerators(
  info: SystemInfo | MayflyError,
  artifacts: Artifacts | MayflyError,
  probe: boolean,
): Promise<Finding[]> {
  const name = "accelerator";
  if (!(info instanceof MayflyError)) {
    const state = info.accelerator === "kvm" ? "ok" : "warning";
    return [{ name, state, detail: `${info.accelerator}: ${info.acceleratorReason}` }];
  }
  if (!probe) return [{ name, state: "note", detail: "not tried" }];
  if (artifacts instanceof MayflyError) return [{ name, state: "note", detail: "cannot be tried before the set-up" }];
  if (!isRoot()) return [{ name, state: "note", detail: "only root can try it" }];
  const { probeLocalAccelerators } = await import("./engine.ts");
  const probes = await probeLocalAccelerators(stateDirectory(), runDirectory()).catch((error: unknown) =>
    asError(error),
  );
  if (probes instanceof MayflyError) return [{ name, state: "missing", detail: `cannot be tried: ${probes.message}` }];
  const none = probes.every(({ usable }) => !usable);
  return probes.map(({ accelerator, usable, reason }) => ({
    name,
    state: usable ? "ok" : none ? "missing" : "warning",
    detail: `${accelerator} ${usable ? "works" : "cannot be used"}: ${reason}`,
  }));
}

function controlGroups(): Finding {
  const name = "control groups";
  const { version, controllers } = cgroupControllers();
  const lacking = ["memory", "cpu", "pids"].filter((controller) => !controllers.includes(controller));
  if (lacking.length === 0) return { name, state: "ok", detail: version };
  const detail = `${version}, without ${lacking.join(", ")}: VMs run without these limits on the host`;
  return { name, state: "warning", detail };
}

function memory(): Finding {
  const detail = `${formatBytes(availableMemoryBytes())} of ${formatBytes(hostMemoryBytes())} available, ${hostCpuCount()} CPUs`;
  return { name: "memory", state: "ok", detail };
}

async function disk(): Promise<Finding> {
  const name = "disk";
  const stateDir = stateDirectory();
  const free = await freeBytes(stateDir).catch(() => freeBytes("/"));
  const detail = `${formatBytes(free)} free for ${stateDir}`;
  if (free >= LEAST_FREE_BYTES) return { name, state: "ok", detail };
  return {
    name,
    state: "warning",
    detail: `${detail}, less than ${formatBytes(LEAST_FREE_BYTES)}`,
    remedy: "mayfly system prune",
  };
}

function sameMemory(): Finding {
  const name = "same-page merging";
  const state = merging();
  if (state === "unsupported")
    return {
      name,
      state: "note",
      detail: "not for processes that ask for it, as run --merge does (Linux 6.4 with KSM)",
    };
  if (state === "on") return { name, state: "ok", detail: "on, for VMs of run --merge" };
  const detail = "off: VMs of run --merge share no more than others. A side channel between them (docs/SECURITY.md)";
  return { name, state: "note", detail, remedy: "echo 1 >/sys/kernel/mm/ksm/run" };
}

function tools(): Finding[] {
  return TOOLS.map(({ program, use, package: owner = packageOf(program), required }) => {
    const path = findTool(program);
    if (path !== undefined) return { name: program, state: "ok", detail: path };
    const detail = `not found; for ${use}`;
    return {
      name: program,
      state: required ? "missing" : "note",
      detail,
      ...(owner === undefined ? {} : { remedy: `apt-get install -y ${owner}` }),
    };
  });
}
