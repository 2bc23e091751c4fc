/** What the scenario `fork` takes its samples on: a daemon with full pools, and a host for QEMUs that no daemon has. */
import { chmod, mkdtemp } from "node:fs/promises";
import type { PoolRequest, SystemInfo } from "../../src/contract/api.ts";
import { loadArtifacts } from "../../src/setup/artifacts.ts";
import { Deadline } from "../../src/sys/deadline.ts";
import { stateDirectory } from "../../src/sys/directories.ts";
import { makeDirectory, removePath } from "../../src/sys/paths.ts";
import { type OwnDaemon, startOwnDaemon } from "../own-daemon.ts";
import { type OwnHost, openOwnHost } from "../own-host.ts";
import { pause } from "../pace.ts";
import type { Listener } from "../prepare.ts";

/** Memory of the VMs on which the promises rest. */
export const DEFAULT_MIB = 128;
/** Between two samples, so that none pays for the end of the one before. */
const GAP_MS = 100;
const SETTLE_LIMIT_MS = 120_000;
/** Waiting QEMUs beyond the children of the largest fork. */
const SPARE = 2;
/** On a disk wherever there is one: a template's holes would be filled on tmpfs. */
const PARENT_DIRECTORY = "/var/tmp";

/** What all samples are taken on. */
export interface Ground {
  daemon: OwnDaemon;
  /** For QEMUs that no daemon has. */
  host: OwnHost;
  statesDirectory: string;
  /** The pool that the template of a size has from the start; undefined: none. */
  pool(memoryMiB: number): PoolRequest | undefined;
  /** Resolves when all pools are full and the sample before has been cleaned up. */
  settle(): Promise<void>;
}

/** Brings it up; all of it goes with the resources. @param children of the largest fork. */
export async function prepareGround(
  children: number,
  { signal, progress }: Listener,
  resources: AsyncDisposableStack,
): Promise<{ ground: Ground; info: SystemInfo }> {
  const artifactsOf = stateDirectory();
  const artifacts = await loadArtifacts(artifactsOf);
  const directory = await mkdtemp(`${PARENT_DIRECTORY}/mayfly-bench-`);
  resources.defer(() => removePath(directory));
  // QEMU runs as a user of its own and opens its files by their paths.
  await chmod(directory, 0o711);
  progress("starting a daemon");
  const pool = { blocked: children + SPARE, warm: 0 };
  const daemon = await startOwnDaemon({ directory: `${directory}/daemon`, artifactsOf, pool, signal });
  resources.use(daemon);
  const info = await daemon.client.system.info({ signal });
  const host = await openOwnHost(`${directory}/plain`, artifacts, info.accelerator, "bench-fork");
  resources.use(host);
  const statesDirectory = `${directory}/states`;
  await makeDirectory(statesDirectory, 0o711);
  const ground: Ground = {
    ...{ daemon, host, statesDirectory },
    pool: (memoryMiB) => (memoryMiB === DEFAULT_MIB ? pool : undefined),
    async settle() {
      await daemon.pools.untilFull(Deadline.after(SETTLE_LIMIT_MS, signal));
      await pause(GAP_MS, signal);
    },
  };
  return { ground, info };
}
