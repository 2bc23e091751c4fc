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

/**
 * crun before 1.9 refuses to start where the unified hierarchy of a hybrid host has a controller: words that hide it.
 * @param first a shell command that is run before in the mount namespace that they enter.
 */
export function withoutUnified(resources: AsyncDisposableStack, first = "true"): Promise<string[] | undefined> {
  return openNamespace(`${first} && umount /sys/fs/cgroup/unified`, resources);
}

/**
 * Ways to start podman, the plainest first.
 * @param first a shell command: podman is started in a mount namespace of its own in which that was run.
 */
export async function podmanWays(resources: AsyncDisposableStack, first?: string): Promise<PodmanWay[]> {
  const plain = first === undefined ? [] : ((await openNamespace(first, resources)) ?? []);
  // Without CAP_SYS_RESOURCE its usual limits cannot be set.
  const limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];
  const enter = await withoutUnified(resources, first);
  const entered = enter === undefined ? [] : [{ note: `${limits.join(" ")}, ${ENTERED}`, enter, flags: limits }];
  const runc = [...limits, "--runtime", "runc"];
  return [
    { note: undefined, enter: plain, flags: [] },
    { note: limits.join(" "), enter: plain, flags: limits },
    ...entered,
    { note: runc.join(" "), enter: plain, flags: runc },
  ];
}
