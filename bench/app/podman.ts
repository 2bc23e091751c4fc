/** The subjects of podman: the service's image as a container, from podman's start to the first answer. */
import { MayflyError } from "../../src/contract/errors.ts";
import { Deadline, nowMs } from "../../src/sys/deadline.ts";
import { runTool, toolEnvironment } from "../../src/sys/tool.ts";
import { type PodmanWay, podmanWays } from "../podman-ways.ts";
import type { Listener } from "../prepare.ts";
import type { Samples } from "../samples.ts";
import type { Taker } from "../turns.ts";
import { type FirstAnswer, firstAnswer, freePort } from "./first-http.ts";
import { installTools } from "./image.ts";
import { SERVICE_PORT } from "./recipes.ts";

const ANSWER_LIMIT_MS = 60_000;

/** Podman with an image in its store. */
export interface PodmanPeer {
  version: string;
  /** How it differs from its plain command line, if it does. */
  note: string | undefined;
  takers: readonly Taker[];
}

/** How the service is reached. */
type Network = (port: number) => string[];

const BRIDGE: Network = (port) => ["-p", `127.0.0.1:${port}:${SERVICE_PORT}`];
const HOST: Network = (port) => ["--network", "host", "-e", `PORT=${port}`];

let containers = 0;

/**
 * Puts an image into podman's store and starts the service once: `podman` is a published port, as one types it; `podman-host` the
 * host's own network, which saves podman the making of one. Where published ports do not work, `podman` is the host's network too.
 * @param layout directory of an OCI layout.
 * @param resources takes what has to be undone afterwards.
 * @throws MayflyError why the plainest way does not work here.
 */
export async function preparePodmanService(
  layout: string,
  listener: Listener,
  resources: AsyncDisposableStack,
): Promise<PodmanPeer> {
  const { signal, progress } = listener;
  await installTools(["podman"], listener);
  progress("podman: pulling the image");
  const image = (await runTool(["podman", "pull", "--quiet", `oci:${layout}:latest`], { signal })).stdout.trim();
  resources.defer(async () => {
    await runTool(["podman", "rmi", "--force", image]).catch(() => undefined);
  });
  const version = /\d+(\.\d+)+\S*/.exec((await runTool(["podman", "--version"])).stdout)?.[0] ?? "unknown";
  progress("podman: starting the service once");
  const starts = (network: Network) => (way: PodmanWay) => startOnce(image, way, network, signal);
  const ways = await podmanWays(resources);
  const onHost = await firstThatWorks(ways, starts(HOST), signal);
  const host = taker("podman-host", () => startOnce(image, onHost, HOST, signal));
  try {
    await starts(BRIDGE)(onHost);
    const bridge = taker("podman", () => startOnce(image, onHost, BRIDGE, signal));
    return { version, note: onHost.note, takers: [bridge, host] };
  } catch (error) {
    if (signal.aborted) throw error;
    const note = [onHost.note, "with --network host, as no published port answers here"].filter(Boolean).join(", ");
    return { version, note, takers: [{ ...host, name: "podman" }] };
  }
}

function taker(name: "podman" | "podman-host", start: () => Promise<FirstAnswer & { startedMs: number }>): Taker {
  return {
    name,
    async take(samples: Samples) {
      const { atMs, startedMs } = await start();
      samples.add(name, "first-http", "ms", atMs - startedMs);
    },
  };
}

async function firstThatWorks(
  ways: readonly PodmanWay[],
  start: (way: PodmanWay) => Promise<unknown>,
  signal: AbortSignal,
): Promise<PodmanWay> {
  let plainest: unknown;
  for (const way of ways) {
    try {
      await start(way);
      return way;
    } catch (error) {
      if (signal.aborted) throw error;
      plainest ??= error;
    }
  }
  throw plainest;
}

/** Runs the service until its first answer, and removes the container. */
async function startOnce(
  image: string,
  { enter, flags }: PodmanWay,
  network: Network,
  signal: AbortSignal,
): Promise<FirstAnswer & { startedMs: number }> {
  containers += 1;
  const name = `mayfly-bench-${process.pid}-${containers}`;
  const port = freePort();
  const command = [...enter, "podman", "run", "--rm", "--name", name, ...flags, ...network(port), image];
  const ended = new AbortController();
  const startedMs = nowMs();
  const child = Bun.spawn(command, { env: toolEnvironment(), stdio: ["ignore", "ignore", "pipe"], detached: true });
  const stderr = new Response(child.stderr).text();
  void child.exited.then(() => ended.abort());
  try {
    const deadline = Deadline.after(ANSWER_LIMIT_MS, AbortSignal.any([signal, ended.signal]));
    return { ...(await firstAnswer(port, deadline)), startedMs };
  } catch (error) {
    if (!ended.signal.aborted || signal.aborted) throw error;
    const stderrTail = (await stderr).trimEnd().slice(-1000);
    const last = stderrTail.split("\n").at(-1);
    throw new MayflyError("tool_failed", `${command.join(" ")} ended with code ${child.exitCode}: ${last}`, {
      details: { exitCode: child.exitCode ?? -1, stderrTail },
    });
  } finally {
    await runTool([...enter, "podman", "rm", "--force", "--time", "0", name]).catch(() => undefined);
    await child.exited;
  }
}
