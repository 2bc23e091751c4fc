/** A container in a warm clone before it is handed out, so that its first real one finds the guest's code translated and caches filled. */
import type { ContainerSpec, ExecSpec } from "../agent/requests.ts";
import { MayflyError } from "../contract/errors.ts";
import type { Deadline } from "../sys/deadline.ts";
import { DEFAULT_CAPABILITIES } from "./capabilities.ts";
import type { Clone } from "./clone.ts";
import { attachDisks, detachDisks } from "./disks.ts";
import { runToEnd, WARM_COMMAND } from "./warm-up.ts";

/** An image's root file system that a clone is warmed for. */
export interface WarmRoot {
  path: string;
  fstype: "erofs";
}

/** Longest that an image's own shell may take to do nothing. */
const SHELL_MS = 5_000;

/** As a container of an image is built that asks for nothing. */
const CONTAINER: ContainerSpec = { fstype: "erofs", readOnly: false, scratch: false, mounts: [] };

/** The path of nearly every first process. */
const FIRST: ExecSpec = { ...WARM_COMMAND, first: true, capabilities: DEFAULT_CAPABILITIES };

/** Keeps a disk mounted beside the container: what the guest has read of it then outlives that. */
const KEEP: ExecSpec = {
  argv: ["/bin/mount", "-t", "erofs", "-o", "ro,nodev,nosuid,noexec", "/dev/vda", "/mnt"],
  env: ["PATH=/bin"],
  outside: true,
  killTree: true,
};

/** Builds a container on an image with a shell, runs a command in it to its end and takes all of it down again. */
export async function rehearseContainer({ qemu, agent }: Clone, { path }: WarmRoot, deadline: Deadline): Promise<void> {
  const disks = { root: { path, format: "raw", readOnly: true } } as const;
  const qmp = await qemu.qmp(deadline);
  await attachDisks(qmp, disks, deadline);
  await agent.container(CONTAINER, deadline);
  await runToEnd(agent, FIRST, deadline);
  await agent.teardown({ trim: false }, deadline);
  await detachDisks(qmp, disks, deadline);
}

/**
 * The same on an image that is asked for often, whose disk then stays: the clone is for that image alone. Of the image's own programs its
 * shell is run once, to do nothing, in a container that is thrown away.
 */
export async function rehearseImage({ qemu, agent }: Clone, { path }: WarmRoot, deadline: Deadline): Promise<void> {
  await attachDisks(await qemu.qmp(deadline), { root: { path, format: "raw", readOnly: true } }, deadline);
  await runToEnd(agent, KEEP, deadline);
  await agent.container({ ...CONTAINER, sameRoot: true }, deadline);
  await runToEnd(agent, FIRST, deadline.within(SHELL_MS)).catch((error: unknown) => {
    // An image without a shell, or with one that does something else: what was read of it so far is a gain already.
    if (!(error instanceof MayflyError) || error.kind === "unavailable") throw error;
  });
  await agent.teardown({ trim: false }, deadline);
}
