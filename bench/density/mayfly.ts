/** VMs as crowds: a daemon of the benchmark's own and all of its QEMUs in one control group. */
import type { CreateVmRequest, SystemInfo, Template } from "../../src/contract/api.ts";
import { MayflyError } from "../../src/contract/errors.ts";
import { Deadline } from "../../src/sys/deadline.ts";
import { linkTemplate, type OwnDaemon, startOwnDaemon } from "../own-daemon.ts";
import type { Listener } from "../prepare.ts";
import type { Crowd, CrowdKind } from "./crowd.ts";
import { WORD } from "./crowd.ts";
import { asRoot, openGroup } from "./group.ts";
import { Merging } from "./merging.ts";
import { REQUESTS } from "./offered.ts";
import type { VmKind } from "./options.ts";

const NO_POOL = { blocked: 0, warm: 0 };
const LIMIT_MS = 120_000;

/** Where the daemons of VMs' crowds come from. */
export interface VmGround {
  /** An empty directory, traversable for QEMU's user. */
  directory: string;
  /** State directory whose artifacts are used. */
  artifactsOf: string;
  accelerator: SystemInfo["accelerator"];
  template: Template;
  /** State directory that has the template. */
  stateDir: string;
}

/** Builds the template that all crowds of VMs share. @returns also what the daemon says of itself. */
export async function prepareVms(
  directory: string,
  artifactsOf: string,
  { signal, progress }: Listener,
  resources: AsyncDisposableStack,
): Promise<{ ground: VmGround; info: SystemInfo }> {
  progress("starting a daemon");
  const daemon = await startOwnDaemon({ directory: `${directory}/first`, artifactsOf, pool: NO_POOL, signal });
  resources.use(daemon);
  const onProgress = (step: string) => progress(`template: ${step}`);
  const template = await daemon.client.templates.build({ profile: "exec" }, { onProgress, signal });
  const info = await daemon.client.system.info({ signal });
  const { accelerator } = info;
  return { ground: { directory, artifactsOf, accelerator, template, stateDir: daemon.stateDir }, info };
}

/** A kind of idle VMs. */
export function vmKind(kind: VmKind, ground: VmGround): CrowdKind {
  let opened = 0;
  return {
    subject: kind,
    facts: () => undefined,
    async open(resources, signal) {
      opened += 1;
      const group = openGroup();
      resources.use(group);
      const { template, stateDir, artifactsOf, accelerator } = ground;
      const directory = `${ground.directory}/${kind}-${opened}`;
      await linkTemplate(template, stateDir, directory);
      const enter = [...group.enter, ...(await asRoot(group, resources))];
      const options = { directory, artifactsOf, accelerator, pool: NO_POOL, images: true, enter, signal };
      const daemon = await startOwnDaemon(options);
      resources.use(daemon);
      // It is there; but its process image is made now.
      await daemon.client.templates.build({ profile: "exec" }, { signal });
      if (kind === "mayfly-copies") {
        await daemon.client.templates.pool(template.id, { blocked: 0, warm: 0, parent: true }, { signal });
        await daemon.pools.untilFull(Deadline.after(LIMIT_MS, signal));
      }
      const running = runningCrowd(daemon, REQUESTS[kind]);
      if (kind === "mayfly-suspended") return { ...suspended(running, daemon), group };
      if (kind !== "mayfly-merge") return { ...running, group };
      const merging = new Merging(resources);
      return { ...running, group: merging.countedWith(group), settle: (stop) => merging.settle(stop) };
    },
  };
}

/** VMs that are left alone. */
function runningCrowd({ client: { vms }, pid }: OwnDaemon, request: CreateVmRequest): Omit<Crowd, "group"> {
  return {
    enginePid: pid,
    start: async (signal) => (await vms.create({ pool: false, ...request }, { signal: limited(signal) })).id,
    async answer(id, signal) {
      const result = await vms.execToEnd(id, { command: ["echo", WORD] }, { signal: limited(signal) });
      const said = Buffer.from(result.stdout, "base64").toString().trim();
      if (result.exitCode !== 0 || said !== WORD) {
        throw new MayflyError("internal", `echo ended with code ${result.exitCode}: ${JSON.stringify(said)}`, {
          vmId: id,
        });
      }
    },
    remove: (id) => vms.remove(id, { force: true }),
  };
}

/** VMs that are suspended when they have started, and are resumed to answer. */
function suspended(running: Omit<Crowd, "group">, { client: { vms } }: OwnDaemon): Omit<Crowd, "group"> {
  return {
    ...running,
    async rest(id, signal) {
      await vms.checkpoint(id, { stop: true }, { signal: limited(signal) });
    },
    async answer(id, signal) {
      await vms.resume(id, { signal: limited(signal) });
      await running.answer(id, signal);
    },
  };
}

/** The signal, or the end of what one call may take. */
function limited(signal: AbortSignal): AbortSignal {
  return AbortSignal.any([signal, AbortSignal.timeout(LIMIT_MS)]);
}
