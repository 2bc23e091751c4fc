/** How podman is started on hosts on which its plain command line does not work. */
import { openNamespace } from "./namespace.ts";

/** A way to start podman. */
export interface PodmanWay {
  /** How it differs from the plain command line, if it does. */
  note: string | undefined;
  /** Words before `podman`. */
  enter: readonly string[];
  /** Flags of `podman run`. */
  flags: readonly string[];
}

/** What is entered by {@link withoutUnified}, for notes. */
export const ENTERED = "by nsenter (about 1 ms) in a mount namespace without the unified control groups";

/** crun before 1.9 refuses to start where the unified hierarchy of a hybrid host has a controller: words that hide it. */
export function withoutUnified(resources: AsyncDisposableStack): Promise<string[] | undefined> {
  return openNamespace("umount /sys/fs/cgroup/unified", resources);
}

/** Ways to start podman, the plainest first. */
export async function podmanWays(resources: AsyncDisposableStack): Promise<PodmanWay[]> {
  // Without CAP_SYS_RESOURCE its usual limits cannot be set.
  const limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];
  const enter = await withoutUnified(resources);
  const entered = enter === undefined ? [] : [{ note: `${limits.join(" ")}, ${ENTERED}`, enter, flags: limits }];
  const runc = [...limits, "--runtime", "runc"];
  return [
    { note: undefined, enter: [], flags: [] },
    { note: limits.join(" "), enter: [], flags: limits },
    ...entered,
    { note: runc.join(" "), enter: [], flags: runc },
  ];
}
