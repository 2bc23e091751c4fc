/** `mayfly demo`: set-up if need be, then VMs cloned and measured before the user's eyes. It leaves nothing behind. */
import { release } from "node:os";
import { dirname } from "node:path";
import { openTransport, parseHost } from "../src/cli/connection.ts";
import { printJson } from "../src/cli/output.ts";
import { progressLine } from "../src/cli/progress.ts";
import type { GlobalOptions } from "../src/cli/specification.ts";
import { clientOver } from "../src/client/client.ts";
import { MayflyError } from "../src/contract/errors.ts";
import { showProgress } from "../src/setup/progress.ts";
import { setup } from "../src/setup/setup.ts";
import { Deadline } from "../src/sys/deadline.ts";
import { stateDirectory } from "../src/sys/directories.ts";
import { hostCpuCount } from "../src/sys/host.ts";
import { newId } from "../src/sys/ids.ts";
import { ownCommand } from "../src/sys/own-command.ts";
import { removePath, temporaryDirectory } from "../src/sys/paths.ts";
import { print, printError } from "../src/sys/standard-io.ts";
import { isTerminal, terminalSize } from "../src/sys/terminal.ts";
import { findBusybox } from "./bundle.ts";
import * as say from "./demo-report.ts";
import { DEMO_COMMAND, type DemoVm, runSeries, type SeriesOptions } from "./demo-series.ts";
import { currentLoad } from "./host-facts.ts";
import { type Peer, preparePeer } from "./peers.ts";
import { PoolWatch } from "./pool-watch.ts";

/** VMs in each of the two series, and runs of each peer. */
const COUNT = 20;
const PEERS = ["runc", "crun"] as const;
/** What all waits for the pool may take together; on a busy machine the rest of the VMs comes as it comes. */
const POOL_PATIENCE_MS = 10_000;

/** How the demo talks: text as it happens, or nothing until the end. */
interface Stage {
  signal: AbortSignal;
  tell(text: string): Promise<void>;
  progress(step: string): void;
}

/** Runs the demo. @returns the exit code. @throws MayflyError: what set-up or the daemon say, `cancelled` after Ctrl-C. */
export async function main(global: GlobalOptions): Promise<number> {
  const interrupt = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => interrupt.abort());
  const { signal } = interrupt;
  const isLocal = parseHost(global.host) === undefined;
  if (isLocal) await prepareHost(signal);
  const line = progressLine();
  const tell = async (text: string) => {
    line.clear();
    if (!global.json) await print(text);
  };
  try {
    const result = await perform(global, isLocal, { signal, tell, progress: (step) => line.show(step) });
    line.clear();
    if (global.json) await printJson(result);
    return 0;
  } catch (error) {
    if (!signal.aborted) throw error;
    throw new MayflyError("cancelled", "The demo was interrupted; nothing of it is left", { cause: error });
  } finally {
    line.clear();
  }
}

async function prepareHost(signal: AbortSignal): Promise<void> {
  using display = showProgress({
    write: (text) => void printError(text),
    isTerminal: isTerminal(2),
    columns: terminalSize(2)?.columns ?? 80,
  });
  await setup({ stateDir: stateDirectory(), onProgress: display.onProgress, signal });
}

async function perform(global: GlobalOptions, isLocal: boolean, stage: Stage) {
  const { signal, tell, progress } = stage;
  const transport = openTransport(global);
  await using client = clientOver(transport);
  const [load = 0] = currentLoad();
  progress("starting the daemon");
  await client.templates.build({}, { onProgress: (step) => progress(`making the parent: ${step}`), signal });
  const info = await client.system.info({ signal });
  const series: Omit<SeriesOptions, "pool"> = { client, transport, count: COUNT, label: newId("op"), signal };

  await tell(say.formatIntroduction(info, COUNT, release()));
  using pools = await PoolWatch.open(client);
  const patience = Deadline.after(POOL_PATIENCE_MS, signal);
  const untilFull = () => pools.untilFull(patience).catch(() => signal.throwIfAborted());
  // What clones have for which nothing is prepared; and filling the pool, which they would feel, is over.
  const onProgress = (step: string) => progress(`making a smaller parent: ${step}`);
  await client.templates.build({ profile: "exec" }, { onProgress, signal });
  progress("filling the pool");
  await untilFull();
  progress("cloning");
  const cold = await runSeries({ ...series, pool: false });
  await tell(`\n${say.formatVms(cold)}${say.formatTimes("Nothing prepared", cold)}`);

  await tell(say.formatPoolIntroduction(await client.system.info({ signal }), COUNT));
  const pooled = await runSeries({
    ...series,
    pool: true,
    async before(index) {
      progress(`VM ${index + 1} of ${COUNT}`);
      await untilFull();
    },
  });
  await tell(say.formatPaths(pooled) + say.formatTimes("From the pool", pooled));

  const peers = isLocal ? await runPeers(stage) : [];
  const times = [
    { name: "a VM, nothing prepared", firstOutputMs: cold.map((vm) => vm.firstOutputMs) },
    { name: "a VM from the pool", firstOutputMs: pooled.map((vm) => vm.firstOutputMs) },
    ...peers.map(({ name, note, firstOutputMs }) => ({
      name: `a container by ${name}${note === null ? "" : " *"}`,
      firstOutputMs,
    })),
  ];
  const notes = peers.flatMap(({ name, note }) => (note === null ? [] : [`* ${name} ${note}\n`]));
  await tell(say.formatComparison(times) + notes.join("") + say.formatLoad(load, hostCpuCount()));
  await tell(say.formatEnd(commandHere()));
  return { command: DEMO_COMMAND, cold, pooled, peers } satisfies { cold: DemoVm[] } & Record<string, unknown>;
}

/** The same command under other runtimes, those that are installed. */
async function runPeers({ signal, progress }: Stage) {
  await using resources = new AsyncDisposableStack();
  const busyboxPath = await findBusybox(stateDirectory());
  if (busyboxPath === undefined) return [];
  const directory = await temporaryDirectory("mayfly-demo");
  resources.defer(() => removePath(directory));
  const results: { name: string; version: string; note: string | null; firstOutputMs: number[] }[] = [];
  for (const name of PEERS) {
    progress(`the same by ${name}`);
    const options = { directory, busyboxPath, command: DEMO_COMMAND, signal };
    const peer = await preparePeer(name, options, resources).catch(() => undefined);
    signal.throwIfAborted();
    if (peer === undefined) continue;
    const { version, note = null } = peer;
    results.push({ name, version, note, firstOutputMs: await runPeer(peer, signal) });
  }
  return results;
}

async function runPeer(peer: Peer, signal: AbortSignal): Promise<number[]> {
  const times: number[] = [];
  for (let run = 0; run < COUNT; run += 1) {
    const { firstOutputMs } = await peer.run(signal);
    if (firstOutputMs !== undefined) times.push(firstOutputMs);
  }
  return times;
}

/** How this program is called from the present directory. */
function commandHere(): string {
  const path = ownCommand();
  return dirname(path) === process.cwd() ? `./${path.slice(dirname(path).length + 1)}` : path;
}
