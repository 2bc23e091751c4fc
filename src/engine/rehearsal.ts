/** A container in a warm clone before it is handed out, so that its first real one finds the guest's code translated and caches filled. */
import type { ContainerSpec, ExecSpec } from "../agent/requests.ts";
import type { Deadline } from "../sys/deadline.ts";
import { DEFAULT_CAPABILITIES } from "./capabilities.ts";
import type { Clone } from "./clone.ts";
import { attachDisks, detachDisks } from "./disks.ts";
import { runToEnd } from "./warm-up.ts";

/** As a container of an image is built that asks for nothing. */
const CONTAINER: ContainerSpec = { fstype: "erofs", readOnly: false, scratch: false, mounts: [] };

/** The path of nearly every first process. */
const FIRST: ExecSpec = {
  argv: ["/bin/sh", "-c", "echo"],
  env: ["PATH=/bin"],
  first: true,
  killTree: true,
  capabilities: DEFAULT_CAPABILITIES,
};

/**
 * Builds a container on the rehearsal image, runs a command in it to its end and takes all of it down again.
 * @param imagePath an erofs image with a shell.
 */
export async function rehearseContainer({ qemu, agent }: Clone, imagePath: string, deadline: Deadline): Promise<void> {
  const disks = { root: { path: imagePath, format: "raw", readOnly: true } } as const;
  const qmp = await qemu.qmp(deadline);
  await attachDisks(qmp, disks, deadline);
  await agent.container(CONTAINER, deadline);
  await runToEnd(agent, FIRST, deadline);
  await agent.teardown({ trim: false }, deadline);
  await detachDisks(qmp, disks, deadline);
}
