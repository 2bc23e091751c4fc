/** Daemons that a benchmark starts for itself, with pools of the sizes that it needs. */
import { closeSync, openSync } from "node:fs";
import { link, mkdir, readdir } from "node:fs/promises";
import { type Client, clientOver } from "../src/client/client.ts";
import type { Transport } from "../src/client/transport.ts";
import { bunTransport } from "../src/client/transport-bun.ts";
import type { SystemInfo, Template } from "../src/contract/api.ts";
import { MayflyError } from "../src/contract/errors.ts";
import type { PoolSizes } from "../src/engine/config.ts";
import { Deadline } from "../src/sys/deadline.ts";
import { daemonSocketPath } from "../src/sys/directories.ts";
import { ownCommandLine, smallEnvironment } from "../src/sys/own-command.ts";
import { makeDirectory } from "../src/sys/paths.ts";
import { tailOfFile } from "../src/sys/process.ts";
import { bundledProgram } from "../src/sys/program-bundle.ts";
import { PoolWatch } from "./pool-watch.ts";
import { directoriesOf } from "./serve.ts";

/** Opening an engine may probe an accelerator by booting a guest. */
const START_LIMIT_MS = 60_000;
const STOP_LIMIT_MS = 40_000;
const LOG_TAIL_BYTES = 2000;

/** How to start one. */
export interface OwnDaemonOptions {
  /** An empty directory that the daemon has to itself. */
  directory: string;
  /** State directory whose artifacts it uses. */
  artifactsOf: string;
  pool: PoolSizes;
  /** Whether it makes process images although its pool has nothing, as a daemon with a pool does. */
  images?: boolean;
  accelerator?: SystemInfo["accelerator"];
  /** Words before its command line, which run it as the same process. */
  enter?: readonly string[];
  signal: AbortSignal;
}

/** A running one; disposing it removes its VMs and ends it. */
export interface OwnDaemon extends AsyncDisposable {
  readonly pid: number;
  readonly stateDir: string;
  readonly runDir: string;
  readonly transport: Transport;
  readonly client: Client;
  readonly pools: PoolWatch;
}

/** Starts a daemon and waits until it serves. @throws MayflyError `daemon_start_failed` with the end of its log. */
export async function startOwnDaemon(options: OwnDaemonOptions): Promise<OwnDaemon> {
  const { directory, pool, signal } = options;
  const { stateDir, runDir } = directoriesOf(directory);
  for (const path of [directory, stateDir, runDir]) await makeDirectory(path, 0o711);
  const logPath = `${directory}/mayflyd.log`;
  // As the command line starts the daemon (src/cli/daemon-start.ts).
  const script = await bundledProgram("bench/serve-program.ts", `${options.artifactsOf}/program`);
  const command = [
    ...(options.enter ?? []),
    ...ownCommandLine({ small: true, script }),
    ...["bench", "serve", `--directory=${directory}`, `--artifacts=${options.artifactsOf}`],
    ...[`--blocked=${pool.blocked}`, `--warm=${pool.warm}`],
    ...(pool.parent === undefined ? [] : [`--parent=${Number(pool.parent)}`]),
    ...(options.images === true ? ["--images"] : []),
    ...(options.accelerator === undefined ? [] : [`--accelerator=${options.accelerator}`]),
  ];
  const log = openSync(logPath, "a", 0o600);
  // The environment as it is now, with the kernel and QEMU that the benchmark was told: Bun passes on the one that it started with.
  const child = Bun.spawn(command, {
    cwd: "/",
    env: smallEnvironment(),
    stdio: ["pipe", log, log, "pipe"],
    detached: true,
  });
  closeSync(log);
  await using cleanup = new AsyncDisposableStack();
  cleanup.defer(() => stop(child));
  if (!(await Deadline.after(START_LIMIT_MS, signal).race(isReady(child.stdio[3]), "the benchmark's daemon"))) {
    const stderrTail = tailOfFile(logPath, LOG_TAIL_BYTES);
    throw new MayflyError("daemon_start_failed", "Cannot start the benchmark's daemon: it ended before it was ready", {
      details: { stderrTail },
    });
  }
  const transport = bunTransport({ address: { socketPath: daemonSocketPath(runDir) }, token: undefined });
  const client = clientOver(transport);
  const pools = cleanup.use(await PoolWatch.open(client));
  const resources = cleanup.move();
  return {
    ...{ pid: child.pid, stateDir, runDir, transport, client, pools },
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}

/** Whether a line comes on the descriptor before it ends. */
async function isReady(fd: number | null | undefined): Promise<boolean> {
  if (fd === null || fd === undefined) return false;
  for await (const chunk of Bun.file(fd).stream()) if (chunk.includes(10)) return true;
  return false;
}

async function stop(child: Bun.Subprocess<"pipe", number, number>): Promise<void> {
  await child.stdin.end();
  const killer = setTimeout(() => child.kill("SIGKILL"), STOP_LIMIT_MS);
  await child.exited;
  clearTimeout(killer);
}

/**
 * Gives a state directory the template of another by hard links: the same file, so that clones of both share its pages.
 * @throws the system's error when both are not on one file system.
 */
export async function linkTemplate(template: Template, fromStateDir: string, directory: string): Promise<void> {
  const from = `${fromStateDir}/templates/${template.id}`;
  const to = `${directoriesOf(directory).stateDir}/templates/${template.id}`;
  await mkdir(to, { recursive: true, mode: 0o711 });
  const files = (await readdir(from, { withFileTypes: true })).filter((entry) => entry.isFile());
  for (const { name } of files) await link(`${from}/${name}`, `${to}/${name}`);
}
