/** From a request and an image's configuration to what runs in a VM and what it finds there. Pure: a test prints it. */
import type { ContainerMount, ContainerSpec, ExecSpec } from "../agent/requests.ts";
import type { CreateVmRequest, HealthCheck, ImageConfig, PortMapping } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import { signalByName } from "../contract/signals.ts";
import { capabilityMask } from "./capabilities.ts";
import { type Accounts, type ResolvedUser, resolveUser } from "./users.ts";

/** Environment that every process has unless it is told otherwise; docker's default. */
export const DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const SIGTERM = 15;
/** Disks that a VM has beside its root and its scratch disk. */
export const VOLUME_SLOTS = 3;
/** setrlimit(2): open files, as docker limits them. */
const RLIMIT_NOFILE = { resource: 7, soft: 1_048_576n, hard: 1_048_576n };

/** What the image brings, or an imported root file system without a configuration. */
export interface ContainerBase {
  config: ImageConfig;
  accounts: Accounts;
  fstype: "erofs" | "ext4";
}

/** How processes of a container run unless a request says otherwise; recorded with its VM, for exec and restarts. */
export interface ProcessDefaults {
  env: Record<string, string>;
  workdir: string;
  /** As asked for, for exec to look up in the VM. */
  user: string;
  /** Mask in decimal (JSON has no such numbers). */
  capabilities: string;
}

/** A container, planned. */
export interface ContainerPlan {
  /** Program and arguments of the main process; undefined: none, only exec. */
  argv: string[] | undefined;
  init: boolean;
  user: ResolvedUser;
  defaults: ProcessDefaults;
  /** Mounts in the guest; disks among them count through `request.volumes` in order. */
  guest: ContainerSpec & { mounts: ContainerMount[] };
  labels: Record<string, string>;
  stopSignal: number;
  ports: PortMapping[];
  health: HealthCheck | undefined;
}

/**
 * Plans the container of a request.
 * @throws `invalid_argument` for what is contradictory, `user_not_found`, `limit_reached` for too many disks.
 */
export function planContainer(request: CreateVmRequest, base: ContainerBase): ContainerPlan {
  const { config } = base;
  const user = request.user ?? (config.user === undefined || config.user === "" ? "0:0" : config.user);
  const resolved = resolveUser(user, base.accounts);
  const argv = commandOf(request, config);
  return {
    argv,
    init: request.init === true,
    user: resolved,
    defaults: {
      env: { ...environmentOf(config), ...request.env },
      workdir:
        request.workdir ?? (config.workingDir === undefined || config.workingDir === "" ? "/" : config.workingDir),
      user,
      capabilities: String(capabilityMask(request.capAdd, request.capDrop)),
    },
    guest: guestOf(request, base),
    labels: { ...config.labels, ...request.labels },
    stopSignal: request.stopSignal ?? stopSignalOf(config),
    ports: portsOf(request, config),
    health: healthOf(request.health, config.healthCheck),
  };
}

/** What the agent is told to start as the container's first process. */
export function mainSpec(plan: ContainerPlan, request: CreateVmRequest, hostname: string): ExecSpec {
  return {
    ...containerExec(plan.defaults, plan.user, hostname, request),
    argv: plan.argv ?? [],
    first: true,
    init: plan.init,
    killTree: true,
  };
}

/** A process of a container, but for its command. */
export function containerExec(
  defaults: ProcessDefaults,
  user: ResolvedUser,
  hostname: string,
  request: Pick<CreateVmRequest, "env" | "workdir" | "terminal" | "stdin">,
): Omit<ExecSpec, "argv"> {
  const env = {
    PATH: DEFAULT_PATH,
    HOSTNAME: hostname,
    ...(request.terminal === undefined ? {} : { TERM: "xterm" }),
    HOME: user.home,
    ...defaults.env,
    ...request.env,
  };
  return {
    env: Object.entries(env).map(([name, value]) => `${name}=${value}`),
    cwd: request.workdir ?? defaults.workdir,
    uid: user.uid,
    gid: user.gid,
    groups: user.groups,
    capabilities: BigInt(defaults.capabilities),
    limits: [RLIMIT_NOFILE],
    stdin: request.stdin === true,
    ...(request.terminal === undefined ? {} : { terminal: request.terminal }),
  };
}

/** Docker's rule: a given entrypoint also drops the image's arguments. */
function commandOf(request: CreateVmRequest, config: ImageConfig): string[] | undefined {
  const entrypoint = request.entrypoint ?? config.entrypoint ?? [];
  const defaults = request.entrypoint === undefined ? (config.cmd ?? []) : [];
  const argv = [...entrypoint, ...(request.command ?? defaults)];
  return argv.length === 0 ? undefined : argv;
}

function environmentOf(config: ImageConfig): Record<string, string> {
  const entries = (config.env ?? []).map((entry): [string, string] => {
    const equals = entry.indexOf("=");
    return equals < 0 ? [entry, ""] : [entry.slice(0, equals), entry.slice(equals + 1)];
  });
  return Object.fromEntries(entries.filter(([name]) => name !== ""));
}

function stopSignalOf(config: ImageConfig): number {
  if (config.stopSignal === undefined || config.stopSignal === "") return SIGTERM;
  const number = signalByName(config.stopSignal);
  if (number !== undefined) return number;
  throw new MayflyError("image_invalid", `The image's stop signal ${JSON.stringify(config.stopSignal)} is no signal`);
}

function portsOf(request: CreateVmRequest, config: ImageConfig): PortMapping[] {
  const asked = request.ports ?? [];
  if (request.publishAll !== true) return asked;
  const exposed = (config.exposedPorts ?? []).flatMap((text) => {
    const [port = "", protocol = "tcp"] = text.split("/");
    return protocol === "tcp" && /^\d{1,5}$/.test(port) ? [Number(port)] : [];
  });
  const missing = exposed.filter((guestPort) => !asked.some((mapping) => mapping.guestPort === guestPort));
  return [...asked, ...missing.map((guestPort) => ({ hostPort: 0, guestPort }))];
}

/** The image's check with what the request says about it. `["NONE"]` from either side that decides the test: no check. */
function healthOf(asked: CreateVmRequest["health"], image: HealthCheck | undefined): HealthCheck | undefined {
  const test = asked?.test ?? image?.test;
  if (test === undefined || test[0] === "NONE") return undefined;
  return { ...image, ...asked, test };
}

function guestOf(request: CreateVmRequest, base: ContainerBase): ContainerPlan["guest"] {
  const volumes = request.volumes ?? [];
  if (volumes.length > VOLUME_SLOTS) {
    throw new MayflyError(
      "limit_reached",
      `Cannot mount ${volumes.length} volumes and directories in one VM: it has ${VOLUME_SLOTS} slots for disks`,
    );
  }
  const disks = volumes.map(
    (mount, disk): ContainerMount => ({
      kind: "disk",
      disk,
      fstype: "volume" in mount.source ? "ext4" : "erofs",
      target: mount.target,
      readOnly: mount.readOnly === true || "directory" in mount.source,
      nodev: true,
    }),
  );
  const tmpfs = (request.tmpfs ?? []).map(
    (mount): ContainerMount => ({
      kind: "tmpfs",
      target: mount.target,
      sizeBytes: mount.sizeBytes ?? 0,
      mode: mount.mode ?? 0o1777,
      readOnly: mount.readOnly === true,
      nosuid: true,
      nodev: true,
      noexec: mount.exec !== true,
    }),
  );
  const secrets: ContainerMount[] =
    request.secrets === undefined
      ? []
      : [{ kind: "tmpfs", target: "/run/secrets", sizeBytes: 0, mode: 0o755, nosuid: true, nodev: true, noexec: true }];
  const mounts = [...disks, ...tmpfs, ...secrets];
  refuseSameTarget(mounts);
  const taken = new Set(mounts.map((mount) => normal(mount.target)));
  const writable = (base.config.volumes ?? [])
    .filter((target) => target.startsWith("/") && !taken.has(normal(target)))
    .map((target): ContainerMount => ({ kind: "directory", target }));
  return {
    fstype: base.fstype,
    readOnly: request.readOnly === true,
    scratch: request.diskBytes !== undefined,
    // What lies above is mounted first.
    mounts: [...mounts, ...writable].sort((a, b) => depth(a.target) - depth(b.target)),
  };
}

const normal = (path: string) => path.replaceAll(/\/+/g, "/").replace(/(?<=.)\/$/, "");
const depth = (path: string) => normal(path).split("/").length;

function refuseSameTarget(mounts: readonly ContainerMount[]): void {
  const seen = new Set<string>();
  for (const { target } of mounts) {
    const path = normal(target);
    if (path === "/") throw new MayflyError("invalid_argument", "Cannot mount over /: it is the image's own");
    if (path.split("/").includes("..")) {
      throw new MayflyError("invalid_argument", `Cannot mount at ${target}: the path must not have ".."`);
    }
    if (seen.has(path)) throw new MayflyError("invalid_argument", `Cannot mount twice at ${path}`);
    seen.add(path);
  }
}
