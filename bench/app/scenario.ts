/** The scenario `app`: a web service of an image, from the request for it to its first answer, as a container and as a VM in several ways. */
import { chmod, mkdtemp } from "node:fs/promises";
import type { SystemInfo } from "../../src/contract/api.ts";
import { MayflyError } from "../../src/contract/errors.ts";
import { loadArtifacts } from "../../src/setup/artifacts.ts";
import { Deadline } from "../../src/sys/deadline.ts";
import { stateDirectory } from "../../src/sys/directories.ts";
import { isRoot, removePath } from "../../src/sys/paths.ts";
import { findBusybox } from "../bundle.ts";
import { currentCommit, currentLoad, type HostFacts, hostFacts } from "../host-facts.ts";
import type { Outcome } from "../outcome.ts";
import { startOwnDaemon } from "../own-daemon.ts";
import { pause } from "../pace.ts";
import type { Listener } from "../prepare.ts";
import { appPromises } from "../promises.ts";
import { toldOfApp } from "../report.ts";
import { type Row, Samples } from "../samples.ts";
import { Failures, takeTurns } from "../turns.ts";
import { busyboxImage } from "./busybox-image.ts";
import { appImage } from "./image.ts";
import type { AppOptions } from "./options.ts";
import { Pages } from "./pages.ts";
import { type PodmanPeer, preparePodmanService } from "./podman.ts";
import { type App, RECIPES, SERVICE_PORT } from "./recipes.ts";
import { type AppBench, vmTakers } from "./subjects.ts";

/** Prepared ones of each kind; a sample takes one, and waits for all before it. */
const POOL = { blocked: 0, warm: 2 };
const WARM_UP_ROUNDS = 1;
/** Between two samples, so that none pays for the end of the one before. */
const GAP_MS = 200;
const SETTLE_LIMIT_MS = 120_000;
/** On a disk wherever there is one: a template's holes would be filled on tmpfs. */
const PARENT_DIRECTORY = "/var/tmp";

/** What `--json` prints. */
export interface AppReport {
  scenario: "app";
  app: App;
  host: HostFacts & { peers: Record<string, { version: string; note: string | null }> };
  commit: string | null;
  rows: Row[];
}

/** Runs the scenario. @throws MayflyError when something cannot be measured that has to be there, and `cancelled`. */
export async function run(options: AppOptions, listener: Listener): Promise<Outcome<AppReport>> {
  if (!isRoot()) throw new MayflyError("root_required", "Cannot run the benchmark: its daemon must run as root");
  const loadAverage = currentLoad();
  const samples = new Samples();
  await using resources = new AsyncDisposableStack();
  const { bench, info, layout } = await prepareVms(options, samples, listener, resources);
  const podman = options.podman ? await preparePodman(layout, listener, resources) : undefined;
  const takers = [...(podman?.takers ?? []), ...vmTakers(bench)];
  const failures = new Failures(listener);
  const settle = async () => {
    await bench.daemon.pools.untilFull(Deadline.after(SETTLE_LIMIT_MS, listener.signal));
    await pause(GAP_MS, listener.signal);
  };
  listener.progress("warming up");
  for (let round = 0; round < WARM_UP_ROUNDS; round += 1) {
    await takeTurns(takers, round, new Samples(), { failures, settle });
  }
  for (let round = 0; round < options.runs; round += 1) {
    listener.progress(`round ${round + 1} of ${options.runs}`);
    await takeTurns(takers, round, samples, { failures, settle });
  }
  const peers = podman === undefined ? {} : { podman: { version: podman.version, note: podman.note ?? null } };
  const host = { ...(await hostFacts(info, loadAverage)), peers };
  const head = { scenario: "app", app: options.app, host, commit: await currentCommit() } as const;
  const report: AppReport = { ...head, rows: samples.rows() };
  return { report, told: toldOfApp(report), samples, failures: failures.count, promises: appPromises(options.app) };
}

async function prepareVms(
  { app }: AppOptions,
  samples: Samples,
  listener: Listener,
  resources: AsyncDisposableStack,
): Promise<{ bench: AppBench; info: SystemInfo; layout: string }> {
  const { signal, progress } = listener;
  const artifactsOf = stateDirectory();
  await loadArtifacts(artifactsOf);
  const busyboxPath = await findBusybox(artifactsOf);
  if (busyboxPath === undefined) throw new MayflyError("setup_required", "Set-up's busybox is not there: mayfly setup");
  const layout = await appImage(app, artifactsOf, listener);
  const directory = await mkdtemp(`${PARENT_DIRECTORY}/mayfly-bench-`);
  resources.defer(() => removePath(directory));
  // QEMU runs as a user of its own and opens its files by their paths.
  await chmod(directory, 0o711);
  progress("starting a daemon");
  const daemon = await startOwnDaemon({ directory: `${directory}/daemon`, artifactsOf, pool: POOL, signal });
  resources.use(daemon);
  const { images, templates, system } = daemon.client;
  const onProgress = (step: string) => progress(step);
  const load = async (path: string) => {
    const [image] = await images.load({ path }, { onProgress, signal });
    if (image === undefined) throw new MayflyError("image_invalid", `${path} has no image`);
    return image.id;
  };
  const busybox = await load(await busyboxImage(`${directory}/busybox`, busyboxPath));
  const image = await load(layout);
  await templates.build({}, { onProgress, signal });
  const { memoryMiB, warmUps } = RECIPES[app];
  const memoryBytes = memoryMiB * 2 ** 20;
  const page = { kind: "http", port: SERVICE_PORT, path: "/" } as const;
  const template = await templates.build(
    {
      name: `bench-${app}`,
      image,
      memoryBytes,
      ready: page,
      warmUp: [page],
      warmUpTimes: warmUps,
      pool: POOL,
    },
    { onProgress, signal },
  );
  samples.add("template", "build", "ms", template.buildMs);
  const info = await system.info({ signal });
  const bench = {
    signal,
    daemon,
    service: { image, memoryBytes },
    busybox,
    template: template.id,
    pool: POOL,
    pages: new Pages(),
  };
  return { bench, info, layout };
}

async function preparePodman(
  layout: string,
  listener: Listener,
  resources: AsyncDisposableStack,
): Promise<PodmanPeer | undefined> {
  try {
    const peer = await preparePodmanService(layout, listener, resources);
    if (peer.note !== undefined) listener.note(`podman is run ${peer.note}: it does not start otherwise here`);
    return peer;
  } catch (error) {
    if (listener.signal.aborted) throw error;
    listener.note(`podman is left out: ${error instanceof Error ? error.message : error}`);
    return undefined;
  }
}
