/**
 * The daemon of a benchmark: the same engine and REST interface as `mayfly daemon`, with a state directory, a run directory and pool
 * sizes of its own. It ends with its standard input, so that nothing of it stays when the benchmark is gone, however that ended.
 */
import { readOptions } from "../src/cli/arguments.ts";
import { MayflyError } from "../src/contract/errors.ts";
import type { Accelerator } from "../src/contract/machine.ts";
import { daemonOptions } from "../src/daemon/config.ts";
import { runDaemon } from "../src/daemon/main.ts";
import type { Engine } from "../src/engine/interface.ts";
import { openEngine } from "../src/engine/open.ts";
import { loadArtifacts } from "../src/setup/artifacts.ts";
import { Deadline } from "../src/sys/deadline.ts";
import { removePath } from "../src/sys/paths.ts";
import { standardInput } from "../src/sys/standard-io.ts";

const REMOVE_LIMIT_MS = 20_000;
/** Thousands of idle VMs are to be measured on small hosts, too: none of them takes what it may. */
const OVERCOMMIT = 1000;

const OPTIONS = {
  directory: { kind: "value", value: "DIR", summary: "Where state and sockets go" },
  artifacts: { kind: "value", value: "DIR", summary: "State directory whose artifacts are used" },
  blocked: { kind: "value", value: "N", summary: "QEMUs kept blocked on their state socket" },
  warm: { kind: "value", value: "N", summary: "Warm clones kept" },
  parent: { kind: "value", value: "0|1", summary: "Whether a parent is kept that clones are copied from" },
  images: { kind: "flag", summary: "Make process images, although no pool has anything" },
  accelerator: { kind: "value", value: "NAME", summary: "Accelerator; without it the probe chooses" },
} as const;

/** Directories below the one that a daemon was given. */
export function directoriesOf(directory: string): { stateDir: string; runDir: string } {
  return { stateDir: `${directory}/state`, runDir: `${directory}/run` };
}

/** Serves until standard input ends or SIGTERM comes. Descriptor 3 takes the line that it is ready. @returns the exit code. */
export async function serve(argv: readonly string[]): Promise<number> {
  const { options } = readOptions(OPTIONS, argv, "mayfly bench serve", false);
  const directory = text(options, "directory");
  const { stateDir, runDir } = directoriesOf(directory);
  const parent = options["parent"] === undefined ? {} : { parent: text(options, "parent") === "1" };
  const pool = { blocked: Number(text(options, "blocked")), warm: Number(text(options, "warm")), ...parent };
  const accelerator = options["accelerator"];
  const artifacts = await loadArtifacts(text(options, "artifacts"));
  const flags = [`--state-dir=${stateDir}`, `--run-dir=${runDir}`, "--log-level=warn", "--ready-fd=3"];
  await runDaemon(daemonOptions(flags, {}), async () => {
    const chosen = isAccelerator(accelerator) ? { accelerator } : {};
    const engine = await openEngine({
      stateDir,
      runDir,
      artifacts,
      pool,
      profiles: [],
      overcommit: OVERCOMMIT,
      ...(options["images"] === true ? { processImages: true } : {}),
      ...chosen,
    });
    void endWithInput(engine);
    return engine;
  });
  // Whoever started it removes what lies around this directory, unless it was killed.
  await removePath(directory);
  return 0;
}

/** Once nobody holds the other end of standard input, the VMs are removed and the daemon stops. */
async function endWithInput(engine: Engine): Promise<void> {
  try {
    for await (const _ of standardInput());
  } finally {
    const deadline = Deadline.after(REMOVE_LIMIT_MS);
    await Promise.allSettled(engine.listVms().map(({ id }) => engine.removeVm(id, { force: true, deadline })));
    process.kill(process.pid, "SIGTERM");
  }
}

function text(options: Readonly<Record<string, unknown>>, name: string): string {
  const value = options[name];
  if (typeof value === "string") return value;
  throw new MayflyError("invalid_argument", `mayfly bench serve needs --${name}`);
}

function isAccelerator(value: unknown): value is Accelerator {
  return value === "kvm" || value === "tcg";
}
