/** The scenario `ports`: a service in a guest, asked through published ports and through QEMU's user-mode network, in turns. */
import { chmod, mkdtemp } from "node:fs/promises";
import type { SystemInfo } from "../../src/contract/api.ts";
import { MayflyError } from "../../src/contract/errors.ts";
import { loadArtifacts } from "../../src/setup/artifacts.ts";
import { stateDirectory } from "../../src/sys/directories.ts";
import { isRoot, makeDirectory, removePath } from "../../src/sys/paths.ts";
import { currentCommit, currentLoad, type HostFacts, hostFacts } from "../host-facts.ts";
import type { Outcome } from "../outcome.ts";
import { startOwnDaemon } from "../own-daemon.ts";
import { pause } from "../pace.ts";
import type { Listener } from "../prepare.ts";
import { portsPromises } from "../promises.ts";
import { toldOfPorts } from "../report.ts";
import { type Row, Samples } from "../samples.ts";
import { Failures, takeTurns } from "../turns.ts";
import type { PortsOptions } from "./options.ts";
import { compileService } from "./service.ts";
import { siblingGroupOf } from "./sibling-group.ts";
import { bootSlirp } from "./slirp.ts";
import { type Network, networkTakers, startForwarded } from "./subjects.ts";

const NO_POOL = { blocked: 0, warm: 0 };
const WARM_UP_ROUNDS = 1;
/** Between two samples, so that none pays for the end of the one before. */
const GAP_MS = 100;
/** On a disk wherever there is one: a template's holes would be filled on tmpfs. */
const PARENT_DIRECTORY = "/var/tmp";

/** What `--json` prints. */
export interface PortsReport {
  scenario: "ports";
  host: HostFacts;
  commit: string | null;
  rows: Row[];
}

/** Runs the scenario. @throws MayflyError when something cannot be measured that has to be there, and `cancelled`. */
export async function run(options: PortsOptions, listener: Listener): Promise<Outcome<PortsReport>> {
  if (!isRoot()) throw new MayflyError("root_required", "Cannot run the benchmark: its daemon must run as root");
  const { signal, progress } = listener;
  const loadAverage = currentLoad();
  const samples = new Samples();
  await using resources = new AsyncDisposableStack();
  const { networks, info } = await prepareNetworks(listener, resources);
  const takers = networkTakers(networks, signal);
  const failures = new Failures(listener);
  const turns = { failures, settle: () => pause(GAP_MS, signal) };
  progress("warming up");
  for (let round = 0; round < WARM_UP_ROUNDS; round += 1) await takeTurns(takers, round, new Samples(), turns);
  for (let round = 0; round < options.rounds; round += 1) {
    progress(`round ${round + 1} of ${options.rounds}`);
    await takeTurns(takers, round, samples, turns);
  }
  const host = await hostFacts(info, loadAverage);
  const report: PortsReport = { scenario: "ports", host, commit: await currentCommit(), rows: samples.rows() };
  return { report, told: toldOfPorts(report), samples, failures: failures.count, promises: portsPromises() };
}

async function prepareNetworks(
  { signal, progress }: Listener,
  resources: AsyncDisposableStack,
): Promise<{ networks: Network[]; info: SystemInfo }> {
  const artifactsOf = stateDirectory();
  const artifacts = await loadArtifacts(artifactsOf);
  const directory = await mkdtemp(`${PARENT_DIRECTORY}/mayfly-bench-`);
  resources.defer(() => removePath(directory));
  // QEMU runs as a user of its own and opens its files by their paths.
  await chmod(directory, 0o711);
  progress("compiling the service");
  const program = await compileService(directory, signal);
  progress("starting a daemon");
  const daemon = await startOwnDaemon({ directory: `${directory}/daemon`, artifactsOf, pool: NO_POOL, signal });
  resources.use(daemon);
  await daemon.client.templates.build({}, { onProgress: (step) => progress(`template: ${step}`), signal });
  const info = await daemon.client.system.info({ signal });
  const { accelerator } = info;
  const forwarded = await startForwarded(daemon, program, signal);
  progress("booting a guest with QEMU's user-mode network");
  await makeDirectory(`${directory}/slirp`);
  const group = siblingGroupOf(forwarded.qemuPid);
  if (group !== undefined) resources.use(group);
  const slirp = await bootSlirp({ directory: `${directory}/slirp`, artifacts, accelerator, program, signal });
  resources.use(slirp);
  group?.add(slirp.pid);
  const peer = { name: "slirp", ports: slirp.ports, qemuPid: slirp.pid, daemonPid: undefined } as const;
  return { networks: [forwarded, peer], info };
}
