/** Other ways to run the same command on the same machine: runc and crun on a bundle, podman on an image. */
import { MayflyError } from "../src/contract/errors.ts";
import { makeDirectory } from "../src/sys/paths.ts";
import { findTool, runTool } from "../src/sys/tool.ts";
import { makeBundle, makeRootfs } from "./bundle.ts";
import { ENTERED, podmanWays, withoutUnified } from "./podman-ways.ts";
import { type TimedProcess, timeProcess } from "./timed-process.ts";

/** The peers that are processes. */
export const RUNTIMES = ["runc", "crun", "podman"] as const;
export type Runtime = (typeof RUNTIMES)[number];

/** A peer that works here. */
export interface Peer {
  name: Runtime;
  version: string;
  /** How it differs from its plain command line, if it does. */
  note: string | undefined;
  /** Runs the command once. @throws what {@link timeProcess} throws. */
  run(signal: AbortSignal): Promise<TimedProcess>;
}

/** What peers are made of. */
export interface PeerOptions {
  /** Empty directory for root file systems and bundles. */
  directory: string;
  busyboxPath: string;
  command: readonly string[];
  signal: AbortSignal;
}

/** A way to start a peer; the first that works is the one that is measured. */
interface Variant {
  note: string | undefined;
  command: (id: string) => string[];
}

let runs = 0;
const nextId = () => `mayfly-bench-${process.pid}-${++runs}`;

/**
 * Prepares a peer and runs its command once.
 * @param resources takes what has to be undone afterwards.
 * @throws MayflyError `tool_missing`, or why the plainest variant does not work here.
 */
export async function preparePeer(name: Runtime, options: PeerOptions, resources: AsyncDisposableStack): Promise<Peer> {
  if (findTool(name) === undefined) throw new MayflyError("tool_missing", `${name} is not installed`);
  const directory = `${options.directory}/${name}`;
  await makeRootfs(`${directory}/rootfs`, options.busyboxPath);
  const variants =
    name === "podman"
      ? await podmanVariants(directory, options, resources)
      : await bundleVariants(name, directory, options, resources);
  const { stdout } = await runTool([name, "--version"]);
  const version = /\d+(\.\d+)+\S*/.exec(stdout)?.[0] ?? "unknown";
  const variant = await firstThatWorks(variants, options.signal);
  const run = (signal: AbortSignal) => timeProcess(variant.command(nextId()), { signal });
  return { name, version, note: variant.note, run };
}

async function firstThatWorks(variants: readonly Variant[], signal: AbortSignal): Promise<Variant> {
  let plainest: unknown;
  for (const variant of variants) {
    try {
      await timeProcess(variant.command(nextId()), { signal });
      return variant;
    } catch (error) {
      if (signal.aborted) throw error;
      plainest ??= error;
    }
  }
  throw plainest;
}

async function bundleVariants(
  name: "runc" | "crun",
  directory: string,
  options: PeerOptions,
  resources: AsyncDisposableStack,
): Promise<Variant[]> {
  await makeBundle(directory, name, options.command);
  const plain = (id: string) => [name, "run", "--bundle", directory, id];
  const enter = name === "crun" ? await withoutUnified(resources) : undefined;
  const entered = enter === undefined ? [] : [{ note: ENTERED, command: (id: string) => [...enter, ...plain(id)] }];
  return [{ note: undefined, command: plain }, ...entered];
}

async function podmanVariants(
  directory: string,
  options: PeerOptions,
  resources: AsyncDisposableStack,
): Promise<Variant[]> {
  const image = `localhost/${nextId()}:busybox`;
  const tarball = `${directory}/rootfs.tar`;
  await makeDirectory(directory);
  await runTool(["tar", "-C", `${directory}/rootfs`, "-cf", tarball, "."]);
  await runTool(["podman", "import", "--quiet", tarball, image], { signal: options.signal });
  resources.defer(async () => {
    await runTool(["podman", "rmi", "--force", image]).catch(() => undefined);
  });
  const ways = await podmanWays(resources);
  return ways.map(({ note, enter, flags }) => ({
    note,
    command: () => [...[...enter, "podman", "run", "--rm", "--network", "none", ...flags, image], ...options.command],
  }));
}
