/** Clones of a template with an application: what a request may say about one, and what such a clone gets of its own. */
import type { ExecSpec } from "../agent/requests.ts";
import type { CreateVmRequest } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import { imageDirectory } from "../image/store.ts";
import type { DiskFiles } from "../machine/devices/disk.ts";
import { shapeOf } from "../machine/profile.ts";
import type { ApplicationPart } from "../template/application.ts";
import type { LoadedTemplate } from "../template/store.ts";
import { type ContainerPlan, containerExec, planContainer } from "./container-plan.ts";
import { HOOK_LIMIT_MS, type HookPlan } from "./hooks.ts";
import type { GuestFile } from "./identity.ts";
import type { Sizes } from "./start.ts";
import { WARM_HOSTNAME } from "./warm-up.ts";

/** Where a clone finds what it was given, in its container; memory file systems, which are made when the template is built. */
export const SECRETS_DIRECTORY = "/run/secrets";
export const INSTANCE_DIRECTORY = "/run/mayfly";
/** What a request has as `env`, as lines `NAME=value`. */
export const ENVIRONMENT_FILE = `${INSTANCE_DIRECTORY}/environment`;

/** Only the application's user reads what a clone was given. */
const PRIVATE = 0o400;

/** What a clone of an application's template is started with. */
export interface ApplicationStart {
  sizes: Sizes;
  /** Most processes; 0: no limit. */
  pids: number;
  /** What the VM's document, health checks, ports and exec go by; its `guest` is built already, its `argv` runs. */
  plan: ContainerPlan;
  files: GuestFile[];
  /** undefined: there are none. */
  hooks: HookPlan | undefined;
}

/** What belongs to the template and cannot be said of a clone. */
export const FIXED = [
  "image",
  "rootfs",
  "command",
  "entrypoint",
  "workdir",
  "user",
  "terminal",
  "stdin",
  "readOnly",
  "init",
  "tmpfs",
  "volumes",
  "diskBytes",
  "capAdd",
  "capDrop",
] as const satisfies readonly (keyof CreateVmRequest)[];
/** What of it no template can be built with either. */
const NEVER: ReadonlySet<string> = new Set(["rootfs", "terminal", "stdin", "volumes", "diskBytes"]);

/**
 * Plans a clone of an application's template.
 * @throws `invalid_argument` for what only the template's build can decide, for more than the template's size, and for an environment that
 * no file of lines can hold.
 */
export function planApplication(
  request: CreateVmRequest,
  template: LoadedTemplate,
  application: ApplicationPart,
  hostname: string,
): ApplicationStart {
  refuseFixed(request, template);
  return {
    sizes: sizesWithin(request, template, application),
    pids: request.pidsLimit ?? application.pids,
    plan: containerPlanOf(request, application),
    files: instanceFiles(request, application),
    hooks: hooksFor(request, application, hostname),
  };
}

/** Disks that every QEMU of a template has from its start: the application's root. */
export function templateDisks(stateDir: string, { manifest }: LoadedTemplate): DiskFiles {
  const { application } = manifest;
  if (application === undefined) return {};
  return { root: { path: rootfsPath(stateDir, application.image.digest), format: "raw", readOnly: true } };
}

/** A process in an application's container as it is run there by default, but for its command. */
export function applicationProcess(
  application: Pick<ApplicationPart, "process" | "user">,
  hostname: string,
  env: Readonly<Record<string, string>> = {},
): Omit<ExecSpec, "argv"> {
  return containerExec(application.process, application.user, hostname, { env });
}

function rootfsPath(stateDir: string, digest: string): string {
  return `${imageDirectory(stateDir, digest)}/rootfs.erofs`;
}

function refuseFixed(request: CreateVmRequest, template: LoadedTemplate): void {
  const asked = FIXED.filter((name) => {
    const value = request[name];
    return value !== undefined && value !== false && !(Array.isArray(value) && value.length === 0);
  });
  if (asked.length === 0) return;
  const remedy = asked.some((name) => NEVER.has(name))
    ? "mayfly run IMAGE starts the application anew, with that"
    : "mayfly template build makes a template with that";
  throw new MayflyError(
    "invalid_argument",
    `Cannot start a clone of ${template.id} with ${asked.join(", ")}: its application runs already`,
    { details: { remedy } },
  );
}

/** The template's sizes, or less where the request says so. */
function sizesWithin(request: CreateVmRequest, { id, manifest }: LoadedTemplate, application: ApplicationPart): Sizes {
  const shape = shapeOf(manifest.fingerprint);
  const { memoryMiB, vcpus } = shape;
  const { memoryBytes = application.memoryBytes, cpus = application.cpus } = request;
  const wholeBytes = memoryMiB * 2 ** 20;
  if (memoryBytes > wholeBytes || cpus > vcpus) {
    const asked = `${Math.ceil(memoryBytes / 2 ** 20)} MiB and ${cpus} CPUs`;
    throw new MayflyError(
      "invalid_argument",
      `Cannot start a clone of ${id} with ${asked}: it has ${memoryMiB} MiB and ${vcpus} CPUs since it was built`,
    );
  }
  return {
    shape,
    memoryBytes,
    cpus,
    limited: memoryBytes < wholeBytes || cpus < vcpus,
  };
}

function containerPlanOf(request: CreateVmRequest, application: ApplicationPart): ContainerPlan {
  const { process, user, image } = application;
  const { env, ports, publishAll, health, labels, stopSignal } = request;
  const asked = { env, ports, publishAll, health, labels, stopSignal };
  const given = Object.fromEntries(Object.entries(asked).filter(([, value]) => value !== undefined));
  const plan = planContainer(given, {
    config: {
      exposedPorts: application.ports.map((port) => `${port}/tcp`),
      labels: application.labels,
      stopSignal: String(application.stopSignal),
      ...(application.health === null ? {} : { healthCheck: application.health }),
    },
    accounts: { passwd: "", group: "" },
    fstype: image.fstype,
  });
  const defaults = { ...process, env: { ...process.env, ...env } };
  return { ...plan, argv: application.argv, init: application.recipe.init === true, user, defaults };
}

/** What a request gives to a VM whose application runs already. @throws `invalid_argument`. */
export function instanceFiles(
  { env, secrets }: Pick<CreateVmRequest, "env" | "secrets">,
  { user: { uid, gid } }: { user: { uid: number; gid: number } },
): GuestFile[] {
  const owned = { mode: PRIVATE, uid, gid };
  const files = Object.entries(secrets ?? {}).map(([name, base64]) => ({
    path: `${SECRETS_DIRECTORY}/${name}`,
    bytes: Buffer.from(base64, "base64"),
    ...owned,
  }));
  const lines = Object.entries(env ?? {}).map(([name, value]) => environmentLine(name, value));
  if (lines.length === 0) return files;
  return [...files, { path: ENVIRONMENT_FILE, bytes: Buffer.from(lines.join("")), ...owned }];
}

function environmentLine(name: string, value: string): string {
  if (!/[\r\n]/.test(name + value)) return `${name}=${value}\n`;
  throw new MayflyError(
    "invalid_argument",
    `Cannot give ${JSON.stringify(name)} to a clone of an application: its value has more than one line, and ${ENVIRONMENT_FILE} has one for each; use a secret`,
  );
}

function hooksFor(
  { env, secrets }: CreateVmRequest,
  application: ApplicationPart,
  hostname: string,
): HookPlan | undefined {
  const commands = hookCommands(application);
  if (commands.length === 0) return undefined;
  const process = applicationProcess(application, hostname, { ...secretVariables(secrets ?? {}), ...env });
  return { commands, process, limitMs: application.recipe.hookTimeoutMs ?? HOOK_LIMIT_MS };
}

/** The hooks of an application as they are rehearsed. @returns undefined if there are none. */
export function rehearsalPlan(
  application: Pick<ApplicationPart, "recipe" | "process" | "user"> & { hooks: readonly string[] },
): HookPlan | undefined {
  const commands = hookCommands(application);
  if (commands.length === 0) return undefined;
  const limitMs = application.recipe.hookTimeoutMs ?? HOOK_LIMIT_MS;
  return { commands, process: applicationProcess(application, WARM_HOSTNAME), limitMs };
}

/** All that runs in a clone before its application goes on. */
export function hookCommands({
  hooks,
  recipe,
}: Pick<ApplicationPart, "recipe"> & { hooks: readonly string[] }): string[][] {
  const own = recipe.postClone === undefined ? [] : [recipe.postClone];
  return [...hooks.map((path) => [path]), ...own];
}

/** Base64 of the longest secret that a hook gets as a variable too, and of all of them: a command's start is one message. */
const SECRET_VARIABLE_CHARS = { each: 8192, all: 40_000 } as const;

/** Secrets that a variable can hold: text, under a name that a shell can use. All of them are files besides. */
export function secretVariables(secrets: Readonly<Record<string, string>>): Record<string, string> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let leftChars: number = SECRET_VARIABLE_CHARS.all;
  const variables: Record<string, string> = {};
  for (const [name, base64] of Object.entries(secrets)) {
    if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name) || base64.length > SECRET_VARIABLE_CHARS.each) continue;
    leftChars -= base64.length;
    if (leftChars < 0) break;
    try {
      const text = decoder.decode(Buffer.from(base64, "base64"));
      if (!text.includes("\0")) variables[name] = text;
    } catch {
      // No text: the file has it.
    }
  }
  return variables;
}
