/** Starting the daemon on demand: one process at a time does it, and waits until it listens or has failed. */
import { errorOfProblem } from "../client/problem.ts";
import { MayflyError } from "../contract/errors.ts";
import { type StartOutcome, spawnAnnounced } from "../sys/announced-process.ts";
import { Deadline } from "../sys/deadline.ts";
import { runDirectory, stateDirectory } from "../sys/directories.ts";
import { waitForLock } from "../sys/lock.ts";
import { ownCommandLine, runsCommandLine, smallEnvironment } from "../sys/own-command.ts";
import { makeDirectory } from "../sys/paths.ts";
import { bundledProgram } from "../sys/program-bundle.ts";

/** The daemon adopts VMs and looks at its templates before it listens; QEMU is probed the first time. */
const START_LIMIT_MS = 120_000;

/**
 * Starts the daemon and then does what could not be done without it.
 * @param attempt what to do; it is tried first, as another process may have started the daemon meanwhile.
 * @throws MayflyError `daemon_start_failed` with the end of the daemon's log, and what `attempt` throws.
 */
export async function startDaemon<T>(
  attempt: () => Promise<T>,
  isNobodyListening: (error: unknown) => boolean,
): Promise<T> {
  const runDir = runDirectory();
  await makeRunDirectory(runDir);
  using _lock = await waitForLock(`${runDir}/start.lock`, { deadlineMs: START_LIMIT_MS });
  try {
    return await attempt();
  } catch (error) {
    if (!isNobodyListening(error)) throw error;
  }
  const logPath = `${await logDirectory(runDir)}/mayflyd.log`;
  const child = await spawnAnnounced(
    [...ownCommandLine({ small: true, script: await programOfDaemon() }), "--json", "daemon", "--ready-fd", "3"],
    logPath,
    smallEnvironment(),
  );
  const outcome = await Deadline.after(START_LIMIT_MS).race(child.outcome, "the daemon's start");
  const failure = failureOf(outcome, logPath);
  if (failure === undefined) return attempt();
  // Another one may have been there first, started by somebody else.
  if (failure.code === "daemon_running") return attempt();
  throw failure;
}

/** The daemon as one file; `undefined`: it runs from the sources, or from wherever this program does. */
async function programOfDaemon(): Promise<string | undefined> {
  if (!runsCommandLine()) return undefined;
  return bundledProgram("src/cli/daemon-program.ts", `${stateDirectory()}/program`);
}

async function makeRunDirectory(runDir: string): Promise<void> {
  await makeDirectory(runDir).catch((error: unknown) => {
    const reason = error instanceof Error ? error.message : String(error);
    throw new MayflyError("daemon_start_failed", `Cannot start the daemon: cannot make ${runDir}: ${reason}`, {
      details: { path: runDir, remedy: "start the daemon as root: sudo mayfly daemon" },
      cause: error,
    });
  });
}

/** Where the log goes: the state directory where it can be written, for it outlives a reboot. */
async function logDirectory(runDir: string): Promise<string> {
  const stateDir = stateDirectory();
  return makeDirectory(stateDir).then(
    () => stateDir,
    () => runDir,
  );
}

/** The error of a start; `undefined` if the daemon is ready. Started with `--json`, it leaves its error as a document in the log. */
function failureOf(outcome: StartOutcome, logPath: string): MayflyError | undefined {
  if (outcome.kind === "said") return undefined;
  const { exitCode, signal, tail } = outcome;
  const problem = /^\{"type":"urn:mayfly:problem:.*\}$/m.exec(tail)?.[0];
  if (problem !== undefined) return errorOfProblem(JSON.parse(problem));
  const how = signal === null ? `ended with code ${exitCode}` : `was killed by ${signal}`;
  return new MayflyError("daemon_start_failed", `Cannot start the daemon: it ${how} before it was ready`, {
    details: { path: logPath, stderrTail: tail, ...(signal === null ? { exitCode: exitCode ?? -1 } : { signal }) },
  });
}
