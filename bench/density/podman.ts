/** podman + crun as they come with Debian, without a network: a store of the benchmark's own. */
import { makeDirectory, removePath } from "../../src/sys/paths.ts";
import { runTool } from "../../src/sys/tool.ts";
import { makeRootfs } from "../bundle.ts";
import { type PodmanWay, podmanWays } from "../podman-ways.ts";
import { busyboxPath, checkAnswer, ECHO_WORD, SLEEP } from "./container-image.ts";
import type { Crowd, CrowdKind } from "./crowd.ts";
import { type CrowdGroup, openGroup } from "./group.ts";

const IMAGE = "localhost/busybox:bench";
/** In a mount namespace with locks and a /run of its own: what is mounted, locked and kept there goes with it. */
const OWN_PLACES = "mount -t tmpfs shm /dev/shm && mount -t tmpfs run /run";

/** The kind. @param directory an empty one, for all that it keeps. */
export async function podmanKind(directory: string): Promise<CrowdKind> {
  const versionOf = async (program: string) =>
    /\d+(\.\d+)+\S*/.exec((await runTool([program, "--version"])).stdout)?.[0] ?? "unknown";
  const version = `${await versionOf("podman")} with crun ${await versionOf("crun")}`;
  let note: string | null = null;
  let opened = 0;
  return {
    subject: "podman",
    facts: () => ({ version, note }),
    async open(resources, signal) {
      opened += 1;
      const { crowd, way } = await openPodman(`${directory}/${opened}`, resources, signal);
      note = way.note ?? null;
      return crowd;
    },
  };
}

async function openPodman(
  directory: string,
  resources: AsyncDisposableStack,
  signal: AbortSignal,
): Promise<{ crowd: Crowd; way: PodmanWay }> {
  await makeDirectory(directory);
  const ways = await podmanWays(resources, OWN_PLACES);
  const group = openGroup();
  resources.use(group);
  const store = ["--root", `${directory}/root`, "--runroot", `${directory}/run`, "--tmpdir", `${directory}/tmp`];
  const podman = (way: PodmanWay) => [...group.enter, ...way.enter, "podman", ...store, "--cgroup-manager", "cgroupfs"];
  await makeRootfs(`${directory}/rootfs`, await busyboxPath());
  const tarball = `${directory}/rootfs.tar`;
  await runTool(["tar", "-C", `${directory}/rootfs`, "-cf", tarball, "."], { signal });
  let plainest: unknown;
  for (const way of ways) {
    try {
      await runTool([...podman(way), "import", "--quiet", tarball, IMAGE], { signal });
      const crowd = crowdOf(podman(way), way, group);
      const id = await crowd.start(signal);
      await crowd.answer(id, signal);
      await crowd.remove(id);
      return { crowd, way };
    } catch (error) {
      if (signal.aborted) throw error;
      plainest ??= error;
      // What it has left may be in the way of the next.
      for (const name of ["root", "run", "tmp"]) await removePath(`${directory}/${name}`).catch(() => undefined);
    }
  }
  throw plainest;
}

function crowdOf(podman: readonly string[], way: PodmanWay, group: CrowdGroup): Crowd {
  let started = 0;
  const flags = ["--network", "none", "--cgroup-parent", group.path, ...way.flags];
  return {
    ...{ group, enginePid: undefined },
    async start(signal) {
      started += 1;
      const id = `c${started}`;
      await runTool([...podman, "run", "--detach", "--name", id, ...flags, IMAGE, ...SLEEP], { signal });
      return id;
    },
    async answer(id, signal) {
      checkAnswer(id, (await runTool([...podman, "exec", id, ...ECHO_WORD], { signal })).stdout);
    },
    async remove(id) {
      await runTool([...podman, "rm", "--force", "--time", "0", id]);
    },
  };
}
