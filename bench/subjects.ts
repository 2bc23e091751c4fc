/** The subjects of one round: each takes one sample of its own way to run the same command. */
import type { ClonePath } from "../src/contract/api.ts";
import { MayflyError } from "../src/contract/errors.ts";
import { Deadline } from "../src/sys/deadline.ts";
import { ownCommand } from "../src/sys/own-command.ts";
import type { ColdBoots } from "./boot.ts";
import { addRun, ECHO, runEcho } from "./measured-run.ts";
import type { BenchOptions } from "./options.ts";
import type { OwnDaemon } from "./own-daemon.ts";
import type { Peer } from "./peers.ts";
import type { Subject } from "./samples.ts";
import { timeProcess } from "./timed-process.ts";
import type { Taker } from "./turns.ts";

const RUN_LIMIT_MS = 60_000;

/** What the subjects work with. */
export interface Bench {
  options: BenchOptions;
  signal: AbortSignal;
  /** Keeps warm clones, unless there is to be no pool. */
  warm: OwnDaemon;
  /** Keeps QEMUs blocked on their state socket; absent without pools. */
  blocked: OwnDaemon | undefined;
  /** Keeps a parent and nothing else, where clones can be copied from one. */
  copies: OwnDaemon | undefined;
  peers: readonly Peer[];
  boots: ColdBoots | undefined;
}

/** All subjects that the options ask for and this machine has. */
export function takersOf(bench: Bench): Taker[] {
  const { warm, blocked, copies, boots, peers, signal } = bench;
  const copied = copies === undefined ? [] : [fromPool(bench, "clone-copy", copies, "copy")];
  const pooled =
    blocked === undefined ? [] : [fromPool(bench, "clone-pool", blocked, "pool"), cli(bench, "clone-warm")];
  const cold = boots === undefined ? [] : [coldBoot(boots, signal)];
  return [nothingPrepared(bench, warm), cli(bench, "clone"), ...copied, ...pooled, ...peers.map(peer), ...cold];

  function peer({ name, run }: Peer): Taker {
    return {
      name,
      async take(samples) {
        const { firstOutputMs, totalMs } = await run(signal);
        if (firstOutputMs !== undefined) samples.add(name, "first-output", "ms", firstOutputMs);
        samples.add(name, "cli", "ms", totalMs);
      },
    };
  }
}

function nothingPrepared({ signal }: Bench, daemon: OwnDaemon): Taker {
  return {
    name: "clone",
    async take(samples) {
      addRun(samples, "clone", await runEcho(daemon.transport, { pool: false }, Deadline.after(RUN_LIMIT_MS, signal)));
    },
  };
}

function fromPool({ signal }: Bench, subject: Subject, daemon: OwnDaemon, expected: ClonePath): Taker {
  return {
    name: subject,
    async take(samples) {
      const run = await runEcho(daemon.transport, {}, Deadline.after(RUN_LIMIT_MS, signal));
      const { path } = run.vm.clone;
      if (path !== expected) {
        throw new MayflyError("pool_exhausted", `Cannot measure ${subject}: a full pool gave a VM by the path ${path}`);
      }
      addRun(samples, subject, run);
    },
  };
}

/** The whole process `mayfly run`, with the pool or without. */
function cli(bench: Bench, subject: "clone" | "clone-warm"): Taker {
  const { signal, warm } = bench;
  const command = [ownCommand(), "run", "--rm", ...(subject === "clone" ? ["--no-pool"] : []), "--", ...ECHO];
  const env = { MAYFLY_RUN_DIR: warm.runDir, MAYFLY_HOST: "" };
  return {
    name: `${subject} cli`,
    async take(samples) {
      const { totalMs } = await timeProcess(command, { env, signal });
      samples.add(subject, "cli", "ms", totalMs);
    },
  };
}

function coldBoot(boots: ColdBoots, signal: AbortSignal): Taker {
  return {
    name: "boot",
    async take(samples) {
      const { readyMs, firstOutputMs } = await boots.boot(signal);
      samples.add("boot", "ready", "ms", readyMs);
      samples.add("boot", "first-output", "ms", firstOutputMs);
    },
  };
}
