/** What is known of a VM besides its memory and devices, so that copies of it can go on: recorded with its state. */
import type { CreateVmRequest, Origin, PublishedPort, Vm } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import type { Deadline } from "../sys/deadline.ts";
import { newId } from "../sys/ids.ts";
import type { LoadedTemplate } from "../template/store.ts";
import { containerExec } from "./container-plan.ts";
import { startingHealth } from "./health.ts";
import { HOOK_LIMIT_MS, type HookPlan, listHooks } from "./hooks.ts";
import { hostnameFrom } from "./new-vm.ts";
import type { VmRecord } from "./records.ts";
import type { RunningVm } from "./running-vm.ts";
import { hookCommands } from "./warmed.ts";

/** How a copy of a VM comes to be; hooks find it in `MAYFLY_EVENT`. */
export type RevivalKind = "fork" | "clone" | "resume" | "restore";

/** Programs that run in each copy before its workload goes on. */
export interface CapturedHooks {
  commands: string[][];
  limitMs: number;
}

/** A part of a record that copies have, too. */
export type CapturedVm = Pick<VmRecord, "vm" | "container" | "again" | "stopGraceMs" | "health" | "machineId"> & {
  hooks: CapturedHooks | null;
};

/**
 * The hooks of a running VM: those that it has from the one that it is a copy of, its template's, or those of the image that it runs on.
 * @throws `image_invalid`, `limit_reached`; what the agent says.
 */
export async function hooksOf(
  running: RunningVm,
  { container, hooks }: Pick<VmRecord, "container" | "hooks">,
  { manifest }: LoadedTemplate,
  deadline: Deadline,
): Promise<CapturedHooks | null> {
  if (hooks != null) return hooks;
  const { application } = manifest;
  if (application !== undefined) {
    const commands = hookCommands(application);
    return commands.length === 0 ? null : { commands, limitMs: application.recipe.hookTimeoutMs ?? HOOK_LIMIT_MS };
  }
  if (container === null) return null;
  const paths = await running.clone.qemu.untilExit(listHooks(running.agent, deadline), "listing hooks");
  return paths.length === 0 ? null : { commands: paths.map((path) => [path]), limitMs: HOOK_LIMIT_MS };
}

/** Hooks as they run in a copy. @param env what the request for it has. */
export function planHooks(
  { hooks, container }: Pick<CapturedVm, "hooks" | "container">,
  kind: RevivalKind,
  hostname: string,
  env: Readonly<Record<string, string>> = {},
): HookPlan | undefined {
  if (hooks === null || container === null) return undefined;
  const process = containerExec(container.defaults, container.user, hostname, { env: { ...env, MAYFLY_EVENT: kind } });
  return { ...hooks, process };
}

/** What distinguishes a copy from the VM that it is of. */
export interface CopyParts {
  name: string;
  labels?: Record<string, string> | undefined;
  hostname?: string | undefined;
  ports: readonly PublishedPort[];
  autoRemove: boolean;
  origin: Origin;
  restart?: CreateVmRequest["restart"];
}

/** The document of a copy in the state `creating`. */
export function copyOf(
  { pausedAt: _, ...vm }: Vm,
  { name, labels, hostname, ports, autoRemove, origin, restart }: CopyParts,
): Vm {
  return {
    ...vm,
    id: newId("vm"),
    name,
    state: "creating",
    hostname: hostname ?? hostnameFrom(name),
    labels: labels ?? vm.labels,
    origin,
    suspendedIn: null,
    ports: [...ports],
    restart: restart ?? { name: "no" },
    restartCount: 0,
    health: vm.health === null ? null : startingHealth(),
    autoRemove,
    createdAt: new Date().toISOString(),
    startedAt: null,
    finishedAt: null,
    pid: null,
    exitCode: null,
    exitSignal: null,
    error: null,
    clone: { path: null, readyMs: null, stages: {} },
  };
}

/** The names of copies. @throws `invalid_argument` for one that is too long. */
export function copyNames(prefix: string | undefined, count: number): (string | undefined)[] {
  const numbers = Array.from({ length: count }, (_, index) => index + 1);
  if (prefix === undefined) return numbers.map(() => undefined);
  const names = count === 1 ? [prefix] : numbers.map((number) => `${prefix}-${number}`);
  const last = names.at(-1) ?? prefix;
  if (last.length <= MAX_NAME) return names;
  throw new MayflyError("invalid_argument", `Cannot name a VM ${last}: a name has at most ${MAX_NAME} characters`);
}

const MAX_NAME = 63;
