/** Warm clones: resumed, exercised, frozen and paused before anybody asks for them, so that a request finds the guest's code translated. */
import type { AgentClient } from "../agent/client.ts";
import { profilesWith, shapeOf } from "../machine/profile.ts";
import { type Deadline, nowMs, pause } from "../sys/deadline.ts";
import type { ApplicationPart } from "../template/application.ts";
import type { LoadedTemplate } from "../template/store.ts";
import { type Clone, resumeInto, type WarmClone } from "./clone.ts";
import { rehearseHooks } from "./hooks.ts";
import { identityRequest, newIdentity } from "./identity.ts";
import { OutputTail } from "./output-tail.ts";
import { probedGuest } from "./probed-guest.ts";
import { exercise } from "./probes.ts";
import type { QemuProcess } from "./qemu-process.ts";
import { rehearseContainer, rehearseImage, type WarmRoot } from "./rehearsal.ts";
import { runToEnd, WARM_COMMANDS, WARM_HOSTNAME } from "./warm-up.ts";
import { applicationProcess, rehearsalPlan } from "./warmed.ts";

/** Longest that one exercise of an application may take. */
const EXERCISE_MS = 20_000;
/**
 * How often an application is exercised in a row. Its second request still runs much for the first time: with three, the request
 * after them took 15 ms of CPU instead of 24 (Node) and 13 instead of 27 (Python) under emulation, for 0.3 MB more of each clone's own. With six,
 * Node's first answer came after 33 ms instead of 36 (medians of 20; podman's beside them after 476 and 494).
 */
const EXERCISES = 6;

/**
 * How often the whole is done in a parent, which is warmed once for all of its copies: what that has not met each of them has to translate. A copy
 * translated 240 to 550 blocks for its first command with one round, and 3 to 70 with four; that came after 11.0 to 13.7 ms instead of 20.8 to 21.4
 * (medians of 60, twice, in turns).
 */
export const PARENT_ROUNDS = 4;

/** Another round is not begun when it would probably end later than this, in ms: an application's own warm-up may take long. */
const ROUNDS_MS = 10_000;

/** Time in which a guest's clock stops ticking, in ms: it does so some moments after the identity. */
const IDLE_MS = 100;

/**
 * Makes a warm clone of a QEMU that blocks on its state socket. It has a throwaway identity: whoever gets it applies its own, which the agent
 * enforces after a freeze. An application runs for a moment with that, its hooks rehearsed, without what a request would give it; what it
 * prints meanwhile is dropped. The base guest rehearses commands, and one in a container.
 * @param rehearsal erofs image for that container; `keep`: an image's own, on which the clone then stays.
 * @param rounds times that all of this is done, if that does not take too long; more than once only without `keep`.
 * @throws what QEMU and the guest do wrong; `application_not_ready` when the application does not do what it did when it was saved.
 */
export async function makeWarmClone(
  qemu: QemuProcess,
  template: LoadedTemplate,
  rehearsal: { root: WarmRoot; keep: boolean },
  rounds: number,
  deadline: Deadline,
): Promise<WarmClone> {
  const { application } = template.manifest;
  const clone = resumeInto(qemu, template, deadline);
  const { agent, main } = clone;
  agent.ready.catch(() => undefined);
  main?.drop();
  const warming = <T>(work: Promise<T>) => qemu.untilExit(work, "warming a clone");
  await warming(agent.identity(identityRequest(newIdentity(WARM_HOSTNAME)), deadline));
  const hooks = application && rehearsalPlan(application);
  if (hooks !== undefined) await warming(rehearseHooks(agent, hooks, deadline));
  await warming(agent.thaw(deadline));
  const work = () =>
    application === undefined
      ? rehearseBase(clone, template, rehearsal, deadline)
      : exerciseApplication(clone, application, deadline);
  const startedMs = nowMs();
  await warming(work());
  // Each of the others does twice as much as the first.
  const roundMs = 2 * (nowMs() - startedMs);
  for (let round = 1; round < rounds && nowMs() - startedMs + roundMs < ROUNDS_MS; round++) {
    await warming(exerciseAgain(agent, work, deadline));
  }
  return paused(
    clone,
    template,
    rehearsal.keep && application === undefined ? rehearsal.root.path : undefined,
    deadline,
  );
}

/**
 * Has a copy of a warm clone run for a moment, so that what it has to copy or to map of its parent's memory is its own before it is handed out.
 * @param root an image's, to rehearse a container on it that the clone then stays on.
 * @throws as {@link makeWarmClone}.
 */
export async function warmCopy(copy: WarmClone, root: WarmRoot | undefined, deadline: Deadline): Promise<WarmClone> {
  const { qemu, template } = copy;
  const clone = { qemu, template: { id: template.id, memoryPath: copy.memoryPath }, ...copy.connect(deadline) };
  const warming = <T>(work: Promise<T>) => qemu.untilExit(work, "warming a clone");
  await warming(copy.resume(deadline));
  if (root !== undefined) {
    await warming(runAsNobodys(clone.agent, deadline));
    await warming(rehearseImage(clone, root, deadline));
  }
  return paused(clone, template, root?.path, deadline);
}

/** Freezes the workload and stops the vCPUs, until it is handed out. */
async function paused(
  clone: Clone,
  template: LoadedTemplate,
  root: string | undefined,
  deadline: Deadline,
): Promise<WarmClone> {
  const { qemu, agent, agentClosed, main } = clone;
  const stop = async () => {
    await agent.freeze(deadline);
    // What was printed before has come when this has.
    if (main !== undefined) await agent.ping(deadline);
    main?.hold();
    const qmp = await qemu.qmp(deadline);
    await qmp.execute("stop", undefined, deadline);
    return qmp;
  };
  const qmp = await qemu.untilExit(stop(), "warming a clone");
  const resume = async (until: Deadline) => {
    await qmp.execute("cont", undefined, until);
  };
  const { memoryPath } = clone.template;
  return { qemu, template, memoryPath, root, connect: () => ({ agent, agentClosed, main }), resume };
}

/** Exercises a guest once more: after it has had nothing to do, and from a freeze on, as a clone is when it is handed out. */
async function exerciseAgain(agent: AgentClient, work: () => Promise<void>, deadline: Deadline): Promise<void> {
  await deadline.race(pause(IDLE_MS), "an idle guest");
  await work();
  await agent.freeze(deadline);
  await runAsNobodys(agent, deadline);
  await work();
}

/** Lets a frozen workload go on with a throwaway identity. */
async function runAsNobodys(agent: AgentClient, deadline: Deadline): Promise<void> {
  await agent.identity(identityRequest(newIdentity(WARM_HOSTNAME)), deadline);
  await agent.thaw(deadline);
}

/** Runs what nearly every first request runs, and a container where there can be one. */
async function rehearseBase(
  clone: Clone,
  template: LoadedTemplate,
  { keep, root }: { root: WarmRoot; keep: boolean },
  deadline: Deadline,
): Promise<void> {
  for (const command of WARM_COMMANDS) await runToEnd(clone.agent, command, deadline);
  if (hasRoot(template)) await (keep ? rehearseImage : rehearseContainer)(clone, root, deadline);
}

/** Whether its machine has a disk that containers could be on. */
function hasRoot({ manifest }: LoadedTemplate): boolean {
  return profilesWith("disk").includes(shapeOf(manifest.fingerprint).profile);
}

/** Does the recipe's warm-ups, or else what tells that the application is ready. */
async function exerciseApplication({ agent }: Clone, application: ApplicationPart, deadline: Deadline): Promise<void> {
  const { recipe, ready } = application;
  const guest = probedGuest(agent, applicationProcess(application, WARM_HOSTNAME), new OutputTail());
  const probes = ready.kind === "http" || ready.kind === "exec" ? [ready] : [];
  for (let time = 0; time < EXERCISES; time++) {
    for (const step of recipe.warmUp ?? probes) await exercise(step, guest, deadline.within(EXERCISE_MS));
  }
}
