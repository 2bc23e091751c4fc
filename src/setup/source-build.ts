/**
 * Building a program from its source in the state directory: one build of a name at a time, in `STATE/build/NAME`, which is empty at
 * its begin and gone after its end; its output stays as `STATE/build/NAME.log`.
 */

import { MayflyError } from "../contract/errors.ts";
import { AppendLog } from "../sys/append-log.ts";
import { tryLockFile, waitForLock } from "../sys/lock.ts";
import {
  freeBytes,
  identityOf,
  isRoot,
  makeDirectory,
  namesIn,
  readOptional,
  removePath,
  writeText,
} from "../sys/paths.ts";
import { runTool } from "../sys/tool.ts";
import { installPackages, notInstalled } from "./debian.ts";
import type { SetupOptions } from "./setup.ts";
import type { Step, StepContext } from "./step.ts";

/** A directory to build in, and what runs programs there. */
export interface BuildPlace {
  /** Empty, but for a build that resumes; on the file system of the state directory, so that a result can be renamed into place. */
  readonly directory: string;
  readonly logPath: string;
  /**
   * Says what is to be built, for a build that resumes: what an interrupted build of the same has left in the directory stays, anything
   * else goes.
   */
  begin(key: string): Promise<void>;
  /**
   * Runs a program in a directory, its output in the log, with no environment but `LC_ALL`, the system's `PATH` and `env`: what is
   * built depends on nothing else. It and all its children end with this process, however it ends.
   *
   * @param onLine gets each line of output.
   * @throws MayflyError `tool_failed` (the message names the log), `cancelled`, `deadline_exceeded`, `tool_missing`.
   */
  run(
    command: readonly string[],
    context: StepContext,
    options: { cwd: string; env?: Readonly<Record<string, string>>; onLine?: (line: string) => void },
  ): Promise<void>;
}

/** Another build of the same thing may take so long, and so may one program. */
const LOCK_DEADLINE_MS = 3_600_000;
const PROGRAM_DEADLINE_MS = 3_600_000;
const LOG_BYTES = 32 * 2 ** 20;
/** VMs go first. */
const NICENESS = "10";
/** In the directory of a build that resumes: what it builds. */
const KEY_FILE = ".key";
const PATH = "/usr/sbin:/usr/bin:/sbin:/bin";

/**
 * Does a build, after any other of the same name.
 *
 * @param neededBytes free disk space that it wants.
 * @param how.resumes what an interrupted one leaves is kept for the next, which calls {@link BuildPlace.begin}, or for set-up to sweep.
 * @throws MayflyError `disk_full` before anything is done; what `build` throws.
 */
export async function inBuildPlace<T>(
  name: string,
  neededBytes: number,
  options: SetupOptions,
  build: (place: BuildPlace) => Promise<T>,
  { resumes = false }: { resumes?: boolean } = {},
): Promise<T> {
  const parent = buildsDirectory(options.stateDir);
  const onWait = () => options.onProgress?.({ kind: "started", step: "waiting", reason: "another build is at work" });
  const signal = options.signal === undefined ? {} : { signal: options.signal };
  using _lock = await waitForLock(`${parent}/${name}.lock`, { deadlineMs: LOCK_DEADLINE_MS, onWait, ...signal });
  const directory = `${parent}/${name}`;
  if (!resumes) await removeLeft(directory, options);
  await needSpace(parent, neededBytes);
  await removeLog(parent, `${name}.log`);
  using log = new AppendLog(parent, `${name}.log`, LOG_BYTES);
  let isKept = false;
  try {
    await makeDirectory(directory);
    return await build(placeIn(directory, `${parent}/${name}.log`, log));
  } catch (error) {
    isKept = resumes && error instanceof MayflyError && error.code === "cancelled";
    throw error;
  } finally {
    if (!isKept) await removePath(directory);
  }
}

/** Removes what builds have left that were killed; those at work are left alone. */
export async function sweepBuilds(stateDir: string): Promise<void> {
  const parent = buildsDirectory(stateDir);
  for (const name of (await namesIn(parent)).filter((entry) => !/\.(lock|log(\.\d+)?)$/.test(entry))) {
    using lock = tryLockFile(`${parent}/${name}.lock`);
    if (lock !== undefined) await removePath(`${parent}/${name}`);
  }
}

/** Step: installs those of the packages that a build needs and the system lacks, and says so before. */
export function buildPackagesStep(needed: readonly string[]): Step {
  return {
    name: "Debian packages for building",
    async pending() {
      const missing = await notInstalled(needed);
      return missing.length === 0 ? undefined : `${missing.join(", ")} missing, to be installed`;
    },
    async run(context) {
      await installPackages(await notInstalled(needed), context);
    },
  };
}

function buildsDirectory(stateDir: string): string {
  return `${stateDir}/build`;
}

function placeIn(directory: string, logPath: string, log: AppendLog): BuildPlace {
  const write = (line: string) => log.append(new TextEncoder().encode(`${line}\n`));
  return {
    directory,
    logPath,
    async begin(key) {
      const path = `${directory}/${KEY_FILE}`;
      if ((await readOptional(path)) === key) return;
      for (const entry of await namesIn(directory)) await removePath(`${directory}/${entry}`);
      await writeText(path, key);
    },
    async run(command, context, { cwd, env = {}, onLine }) {
      write(`+ ${command.join(" ")}`);
      const variables = Object.entries({ ...env, PATH, LC_ALL: "C" }).map(([name, value]) => `${name}=${value}`);
      const whole = [...ownProcesses(), "nice", "-n", NICENESS, "env", "-i", ...variables, ...command];
      const signal = context.signal === undefined ? {} : { signal: context.signal };
      const took = (line: string) => {
        write(line);
        onLine?.(line);
      };
      try {
        await runTool(whole, { cwd, onLine: took, deadlineMs: PROGRAM_DEADLINE_MS, endsWithUs: true, ...signal });
      } catch (error) {
        throw withLog(error, command, logPath);
      }
    },
  };
}

/** Its own process namespace: a killed make would leave its children at work otherwise. */
function ownProcesses(): string[] {
  const asUser = isRoot() ? [] : ["--map-root-user"];
  return ["unshare", ...asUser, "--pid", "--fork", "--kill-child"];
}

function withLog(error: unknown, command: readonly string[], logPath: string): unknown {
  if (!(error instanceof MayflyError)) return error;
  const words = command.slice(0, 2).join(" ");
  if (error.code === "cancelled") return new MayflyError("cancelled", `${words} was interrupted`, { cause: error });
  if (error.code !== "tool_failed") return error;
  const code = error.details.exitCode === undefined ? "" : ` with code ${error.details.exitCode}`;
  const message = `${words} failed${code}; its whole output is in ${logPath}`;
  return new MayflyError("tool_failed", message, { details: { ...error.details, path: logPath }, cause: error });
}

/** Removes what a killed build has left, which takes a while. */
async function removeLeft(directory: string, { onProgress }: SetupOptions): Promise<void> {
  if ((await identityOf(directory)) === undefined) return;
  const [step, startedMs] = ["clean-up", performance.now()];
  onProgress?.({ kind: "started", step, reason: "an earlier build was killed" });
  await removePath(directory);
  onProgress?.({ kind: "finished", step, elapsedMs: performance.now() - startedMs });
}

async function needSpace(directory: string, neededBytes: number): Promise<void> {
  const free = await freeBytes(directory);
  if (free >= neededBytes) return;
  const gigabytes = (bytes: number) => `${(bytes / 1e9).toFixed(1)} GB`;
  throw new MayflyError(
    "disk_full",
    `Cannot build in ${directory}: ${gigabytes(free)} are free there, ${gigabytes(neededBytes)} are needed meanwhile`,
    { details: { path: directory } },
  );
}

async function removeLog(directory: string, name: string): Promise<void> {
  for (const file of await namesIn(directory)) {
    if (file === name || file.startsWith(`${name}.`)) await removePath(`${directory}/${file}`);
  }
}
