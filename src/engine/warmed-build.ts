/**
 * Building the template of an application. Nothing is booted: a base template's memory is copied, a QEMU goes on with the copy as
 * its own memory, the application is started in it, waited for, exercised and frozen; then that memory file is the template's.
 */
import type { AgentClient } from "../agent/client.ts";
import type { AgentProcess } from "../agent/process.ts";
import type { IdentitySpec } from "../agent/requests.ts";
import type { ApplicationRecipe, CreateVmRequest, ReadyProbe } from "../contract/api.ts";
import { MayflyError } from "../contract/errors.ts";
import { shapeOf } from "../machine/profile.ts";
import { Deadline, nowMs, pause } from "../sys/deadline.ts";
import { grantFile } from "../sys/disk-files.ts";
import { newId } from "../sys/ids.ts";
import { copySparse } from "../sys/memory-file.ts";
import type { ApplicationPart } from "../template/application.ts";
import type { LoadedTemplate, TemplateStore, TemplateWorkspace } from "../template/store.ts";
import { fullDisk, saveAndQuit, settle, TRIM_BYTES } from "./build.ts";
import { limitQemu, openAgent } from "./clone.ts";
import { LIMITS_MS } from "./config.ts";
import { type ContainerPlan, mainSpec, planContainer } from "./container-plan.ts";
import { listHooks, rehearseHooks } from "./hooks.ts";
import { type Host, planFor, tenantGid } from "./host.ts";
import { identityRequest, newIdentity } from "./identity.ts";
import type { ResolvedImage } from "./images.ts";
import { checkPattern } from "./log-pattern.ts";
import { OutputTail } from "./output-tail.ts";
import { probedGuest } from "./probed-guest.ts";
import { defaultProbe, describeProbe, exercise, notReady, type ProbedGuest, untilReady } from "./probes.ts";
import { QemuProcess } from "./qemu-process.ts";
import type { Sizes } from "./start.ts";
import { runToEnd, WARM_COMMAND, WARM_HOSTNAME } from "./warm-up.ts";
import { applicationProcess, ENVIRONMENT_FILE, INSTANCE_DIRECTORY, rehearsalPlan } from "./warmed.ts";

/** Longest that an application may take until it is ready, unless its recipe says otherwise. */
const READY_LIMIT_MS = 60_000;
const INSTANCE_BYTES = 1 << 20;
/** How long the end of a main process may be seen after that of what it took along. */
const END_SEEN_MS = 200;
/**
 * How far the guest's clock is set back while the application runs for its template. A clone's clock is right, so the application finds that
 * much time passed, however young its template is: cryptographic generators in user space (OpenSSL's after an hour, GnuTLS' after four) then
 * take new entropy from the kernel before they are used again, instead of giving all clones the same bytes.
 */
const SET_BACK_NS = 6n * 3600n * 1_000_000_000n;

/** What is built. */
export interface ApplicationBuild {
  name: string;
  recipe: ApplicationRecipe;
  image: ResolvedImage;
  sizes: Sizes;
}

/** A build with what follows from its recipe and image. */
interface Planned extends ApplicationBuild {
  request: CreateVmRequest;
  plan: ContainerPlan & { argv: string[] };
  ports: number[];
  ready: ReadyProbe;
}

/** A VM in which an application is made ready. */
interface Builder {
  qemu: QemuProcess;
  agent: AgentClient;
}

/** An application that runs in its builder. */
interface Running extends Builder {
  main: AgentProcess;
  /** On the clock of `nowMs`. */
  startedMs: number;
  guest: ProbedGuest;
  output: OutputTail;
}

/** What is known of an application when it is saved, beside what was planned. */
type Saved = Pick<ApplicationPart, "main" | "hooks" | "rehearsal" | "readyMs" | "warmUpMs">;

/**
 * Builds and publishes the template of an application.
 * @param base template of its size; left as it is.
 * @throws `application_not_ready` with the end of its output; `invalid_argument` for a recipe that cannot be; whatever QEMU, guest or disk do
 * wrong. Nothing is left then.
 */
export async function buildApplicationTemplate(
  host: Host,
  store: TemplateStore,
  base: LoadedTemplate,
  build: ApplicationBuild,
  onStep: (step: string) => void,
  deadline: Deadline,
): Promise<LoadedTemplate> {
  const planned = planBuild(build);
  if (planned.ready.kind === "log") await checkPattern(planned.ready.pattern, deadline);
  const { fingerprint, fingerprintHash } = base.manifest;
  const id = newId("tpl");
  await store.publish({ id, fingerprint, fingerprintHash, gid: tenantGid(host), ownerUid: 0 }, async (workspace) => {
    try {
      onStep("copying the base template");
      base.check();
      await copySparse(base.memoryPath, workspace.memoryPath, deadline.signal);
      return partOf(planned, await makeApplication(host, base, planned, workspace, onStep, deadline));
    } catch (error) {
      throw (await fullDisk(workspace, error)) ?? error;
    }
  });
  return store.load(id);
}

/** TCP ports that an image exposes, in its own order. */
function portsOf({ image }: ResolvedImage): number[] {
  return (image.config.exposedPorts ?? []).flatMap((text) => {
    const [port = "", protocol = "tcp"] = text.split("/");
    return protocol === "tcp" && /^\d{1,5}$/.test(port) ? [Number(port)] : [];
  });
}

/** @throws `invalid_argument` for an image without a command. */
function planBuild(build: ApplicationBuild): Planned {
  const { recipe, image: resolved } = build;
  const { image, rootfs, passwd, group } = resolved;
  const { memoryBytes: _memory, cpus: _cpus, image: _image, ready, readyTimeoutMs: _t, ...rest } = recipe;
  const { warmUp: _w, warmUpTimes: _n, postClone: _p, hookTimeoutMs: _h, ...container } = rest;
  // Hooks may leave what they make here, whoever they run as.
  const instance = { target: INSTANCE_DIRECTORY, sizeBytes: INSTANCE_BYTES, mode: 0o1777 };
  // Secrets come to clones only; the place for them is made here.
  const request: CreateVmRequest = { ...container, tmpfs: [...(recipe.tmpfs ?? []), instance], secrets: {} };
  const plan = planContainer(request, { config: image.config, accounts: { passwd, group }, fstype: rootfs.fstype });
  const { argv } = plan;
  if (argv === undefined) {
    const why = "it has no command, and none was given";
    throw new MayflyError("invalid_argument", `Cannot build a template of image ${image.name}: ${why}`);
  }
  const ports = portsOf(resolved);
  return { ...build, request, plan: { ...plan, argv }, ports, ready: ready ?? defaultProbe(plan.health, ports) };
}

function partOf({ plan, image: { image }, recipe, sizes, ports, ready }: Planned, saved: Saved): ApplicationPart {
  const { name, id, digest, configDigest, fstype } = image;
  const { argv, defaults, user, labels, stopSignal, health } = plan;
  const { memoryBytes, cpus } = sizes;
  return {
    image: { name, id, digest, configDigest, fstype },
    argv,
    process: defaults,
    user,
    memoryBytes,
    cpus,
    pids: recipe.pidsLimit ?? 0,
    labels,
    stopSignal,
    health: health ?? null,
    ports,
    ready,
    recipe,
    ...saved,
  };
}

async function makeApplication(
  host: Host,
  base: LoadedTemplate,
  planned: Planned,
  workspace: TemplateWorkspace,
  onStep: (step: string) => void,
  deadline: Deadline,
): Promise<Saved> {
  await using builder = await startBuilder(host, base, planned, workspace, deadline);
  const { qemu, agent } = builder;
  const whileRunning = <T>(work: Promise<T>, stage: string) => qemu.untilExit(work, stage);
  onStep("starting the application");
  await whileRunning(enterContainer(agent, planned, deadline), "building the container");
  const hooks = await whileRunning(listHooks(agent, deadline), "listing hooks");
  const running = await whileRunning(startMain(builder, planned, deadline), "starting the application");
  // In clones they have run before the application is asked for anything: so have they here.
  await whileRunning(rehearse(agent, planned, hooks, deadline), "rehearsing hooks");
  const figures = await whileRunning(makeReady(running, planned, onStep, deadline), "waiting for the application");
  onStep("trimming the guest's memory");
  const rehearsal = await whileRunning(freezeAndTrim(running, planned, hooks, deadline), "trimming the guest's memory");
  onStep("letting the guest settle");
  await settle();
  const { main, last } = await whileRunning(lastOffsets(running, deadline), "freezing the application");
  onStep("saving the template");
  await saveAndQuit({ qemu, agent: last }, workspace, shapeOf(base.manifest.fingerprint), deadline).finally(() =>
    last.close(),
  );
  return { main, hooks, rehearsal, ...figures };
}

/** A QEMU on the copy, which is its memory: what the guest writes is in the file. It runs as a uid of its own. */
async function startBuilder(
  host: Host,
  base: LoadedTemplate,
  { image }: Planned,
  workspace: TemplateWorkspace,
  deadline: Deadline,
): Promise<Builder & AsyncDisposable> {
  const shape = shapeOf(base.manifest.fingerprint);
  const qemu = QemuProcess.spawn(host.slots, host.records, (slot) => {
    limitQemu(slot, shape);
    for (const path of Object.values(workspace)) grantFile(path, slot.uid);
    return planFor(host, slot, {
      shape,
      memoryPath: workspace.memoryPath,
      memoryMode: "shared",
      disks: { root: { path: image.rootfs.path, format: "raw", readOnly: true } },
      consolePath: workspace.consolePath,
    });
  });
  try {
    const { agent } = openAgent(qemu, deadline.within(LIMITS_MS.clone));
    qemu.loadState(base.deviceState);
    await qemu.untilExit(agent.ready, "copying the base template");
    return { qemu, agent, [Symbol.asyncDispose]: () => qemu.kill() };
  } catch (error) {
    await qemu.kill();
    throw error;
  }
}

/** Identity, limits and container; the file that clones may get of their own is there, empty, for who reads it in any case. */
async function enterContainer(agent: AgentClient, { plan, name, sizes, recipe }: Planned, deadline: Deadline) {
  await agent.identity(earlierIdentity(hostnameOf(name)), deadline);
  const pids = recipe.pidsLimit ?? 0;
  if (sizes.limited || pids > 0) {
    const cpuMillis = Math.round(sizes.cpus * 1000);
    await agent.limits({ memoryBytes: sizes.memoryBytes, cpuMillis, pids }, deadline);
  }
  await agent.container(plan.guest, deadline);
  const { uid, gid } = plan.user;
  await agent.writeFile(ENVIRONMENT_FILE, { mode: 0o400, uid, gid, parents: true }, deadline).end();
  await agent.thaw(deadline);
}

/** An identity of some hours ago. */
function earlierIdentity(hostname: string): IdentitySpec {
  const now = identityRequest(newIdentity(hostname));
  return { ...now, realtimeNs: now.realtimeNs - SET_BACK_NS };
}

/** A host name from a template's name: what a host name may not have becomes a hyphen. */
function hostnameOf(name: string): string {
  return name.replaceAll(/[^a-zA-Z0-9-]/g, "-").slice(0, 63);
}

async function startMain(builder: Builder, planned: Planned, deadline: Deadline): Promise<Running> {
  const { plan, request, name, ready } = planned;
  const output = new OutputTail(ready.kind === "log");
  const startedMs = nowMs();
  const main = builder.agent.exec(mainSpec(plan, request, hostnameOf(name)), output.take, deadline);
  await main.pid;
  const spec = applicationProcess({ process: plan.defaults, user: plan.user }, hostnameOf(name));
  return { ...builder, main, startedMs, output, guest: probedGuest(builder.agent, spec, output) };
}

/** Waits until the application is ready, and exercises it. @throws `application_not_ready`, also when it ends meanwhile. */
async function makeReady(
  { main, startedMs, guest, output }: Running,
  { recipe, ready }: Planned,
  onStep: (step: string) => void,
  deadline: Deadline,
): Promise<Pick<Saved, "readyMs" | "warmUpMs">> {
  const over = new AbortController();
  const signals = deadline.signal === undefined ? [over.signal] : [over.signal, deadline.signal];
  const until = Deadline.after(deadline.remainingMs, AbortSignal.any(signals));
  const ended = main.exited.then(({ code, signal }) => {
    const how = code === null ? `was killed by signal ${signal}` : `ended with code ${code}`;
    throw notReady(`its main process ${how}`, output.text);
  });
  ended.catch(() => undefined);
  const work = async () => {
    onStep(`waiting until the application is ready (${describeProbe(ready)})`);
    await untilReady(ready, guest, until.within(recipe.readyTimeoutMs ?? READY_LIMIT_MS));
    const readyAtMs = nowMs();
    await warmUp(recipe, guest, onStep, until);
    return { readyMs: rounded(readyAtMs - startedMs), warmUpMs: rounded(nowMs() - readyAtMs) };
  };
  try {
    return await Promise.race([work(), ended]);
  } catch (error) {
    // What its end takes along may be seen before that is.
    await Promise.race([ended, pause(END_SEEN_MS)]);
    throw error;
  } finally {
    over.abort();
  }
}

async function warmUp(
  recipe: ApplicationRecipe,
  guest: ProbedGuest,
  onStep: (step: string) => void,
  deadline: Deadline,
): Promise<void> {
  const times = recipe.warmUpTimes ?? 1;
  for (const step of recipe.warmUp ?? []) {
    for (let time = 1; time <= times; time++) {
      onStep(`warming the application up: ${describeProbe(step)} (${time} of ${times})`);
      await exercise(step, guest, deadline);
    }
  }
}

const rounded = (ms: number) => Math.round(ms * 10) / 10;

/**
 * Freezes the application, then trims: nothing of it runs in between. Hooks are rehearsed after that, so that what they read stays in memory.
 * Trimming forks the agent, which leaves its pages copy-on-write; what runs then has them copied here instead of in each clone.
 * @returns why a hook failed, null if none did.
 */
async function freezeAndTrim(
  { agent }: Running,
  planned: Planned,
  hooks: readonly string[],
  deadline: Deadline,
): Promise<string | null> {
  await agent.freeze(deadline);
  await agent.sync(deadline);
  await agent.zeroPortBuffers(deadline);
  await agent.trim(TRIM_BYTES, deadline);
  await agent.identity(earlierIdentity(WARM_HOSTNAME), deadline);
  await runToEnd(agent, { ...WARM_COMMAND, hook: true, outside: true }, deadline);
  const failure = await rehearse(agent, planned, hooks, deadline);
  await agent.freeze(deadline);
  return failure;
}

/** Rehearses hooks. @returns why one failed, null if none did. */
async function rehearse(
  agent: AgentClient,
  { plan, recipe }: Planned,
  hooks: readonly string[],
  deadline: Deadline,
): Promise<string | null> {
  const rehearsed = rehearsalPlan({ hooks, recipe, process: plan.defaults, user: plan.user });
  return rehearsed === undefined ? null : rehearseHooks(agent, rehearsed, deadline);
}

/**
 * Where the output of the main process ends, asked for on a connection of its own, whose hello also ends connections that were left open.
 * @returns that connection, too.
 * @throws `application_not_ready` if it has ended.
 */
async function lastOffsets(
  { qemu, agent, main, output }: Running,
  deadline: Deadline,
): Promise<{ main: Saved["main"]; last: AgentClient }> {
  const pid = await main.pid;
  agent.close();
  const { agent: last } = openAgent(qemu, deadline.within(LIMITS_MS.request));
  const { objects } = await last.ready;
  const known = objects.find(({ object }) => object === main.object);
  if (known === undefined || known.ended) throw notReady("its main process has ended", output.text);
  const others = objects.filter(({ object }) => object !== main.object);
  await Promise.all(others.map(({ object }) => last.releaseObject(object, deadline)));
  return { main: { object: main.object, pid, output: known.outputEnd, error: known.errorEnd }, last };
}
