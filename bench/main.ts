/** `mayfly bench SCENARIO`: what it may be told, and what it prints. */
import { usageError } from "../src/cli/arguments.ts";
import { printJson } from "../src/cli/output.ts";
import { progressLine } from "../src/cli/progress.ts";
import type { GlobalOptions } from "../src/cli/specification.ts";
import { writeText } from "../src/sys/paths.ts";
import { print, printError } from "../src/sys/standard-io.ts";
import type { Outcome } from "./outcome.ts";
import type { Listener } from "./prepare.ts";
import type { Row } from "./samples.ts";

/** Something could not be measured, or with `--enforce` a promise is not met. */
const EXIT_FAILED = 1;

const HELP_HEAD = `Usage: mayfly bench clone [OPTIONS]
       mayfly bench app [OPTIONS]
       mayfly bench ports [OPTIONS]
       mayfly bench fork [OPTIONS]
       mayfly bench density [OPTIONS]

clone  Start VMs in every way there is, one sample of each in every round, other runtimes beside them; then many at once, and the
       memory of idle ones.
app    Start a web service of an image, as a VM in several ways and as a container, and take the time to its first answer.
ports  Send a service in a VM requests and bytes through a published port, and the same through QEMU's user-mode network.
fork   Fork, checkpoint, suspend and resume running VMs, beside QEMU's own savevm, loadvm and migration into a file.
density
       Start many VMs and leave them idle: memory, CPU time, starts a second, whether all answer; containers beside them.

They start daemons of their own, which leave nothing behind; the machine should have nothing else to do.
`;

/** Options that every scenario has. */
interface CommonOptions {
  samplesPath: string | undefined;
  enforce: boolean;
  json: boolean;
}

/**
 * Runs a scenario.
 * @param operands its name and its own options.
 * @returns the exit code: 1 if something could not be measured, and with `--enforce` if a promise is not met.
 */
export async function main(operands: readonly string[], global: GlobalOptions): Promise<number> {
  const [scenario, ...words] = operands;
  if (scenario === "serve") return (await import("./serve.ts")).serve(words);
  if (scenario === undefined || scenario === "--help" || scenario === "-h") return showHelp();
  const run = await scenarioOf(scenario, words, global.json);
  if (run === undefined) return showHelp();
  if (global.host !== undefined) {
    throw usageError("mayfly bench", "--host has no use here: the benchmark runs daemons of its own");
  }
  return run();
}

/** @returns what runs it; undefined when help was asked for. */
async function scenarioOf(name: string, words: string[], json: boolean): Promise<(() => Promise<number>) | undefined> {
  if (name === "clone") {
    const options = (await import("./options.ts")).benchOptions(words, json);
    return (
      options && (() => runScenario(options, async (listener) => (await import("./clone.ts")).run(options, listener)))
    );
  }
  if (name === "app") {
    const options = (await import("./app/options.ts")).appOptions(words, json);
    return (
      options &&
      (() => runScenario(options, async (listener) => (await import("./app/scenario.ts")).run(options, listener)))
    );
  }
  if (name === "ports") {
    const options = (await import("./ports/options.ts")).portsOptions(words, json);
    return (
      options &&
      (() => runScenario(options, async (listener) => (await import("./ports/scenario.ts")).run(options, listener)))
    );
  }
  if (name === "fork") {
    const options = (await import("./fork/options.ts")).forkOptions(words, json);
    return (
      options &&
      (() => runScenario(options, async (listener) => (await import("./fork/scenario.ts")).run(options, listener)))
    );
  }
  if (name === "density") {
    const options = (await import("./density/options.ts")).densityOptions(words, json);
    return (
      options &&
      (() => runScenario(options, async (listener) => (await import("./density/scenario.ts")).run(options, listener)))
    );
  }
  throw usageError("mayfly bench", `there is no scenario ${name}, only clone, app, ports, fork and density`);
}

async function runScenario(
  options: CommonOptions,
  measure: (listener: Listener) => Promise<Outcome<{ rows: Row[] }>>,
): Promise<number> {
  const interrupt = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => interrupt.abort());
  const line = progressLine();
  const note = (text: string) => {
    line.clear();
    void printError(`mayfly bench: ${text}\n`);
  };
  const listener = { signal: interrupt.signal, note, progress: (step: string) => line.show(step) };
  const { report, told, samples, failures, promises } = await measure(listener).finally(() => line.clear());
  const { samplesPath } = options;
  const { rows, ...head } = report;
  if (samplesPath !== undefined) await writeText(samplesPath, samples.toJsonLines({ ...head, options }));
  const verdicts = (await import("./promises.ts")).judge(rows, promises);
  if (options.json) await printJson(report);
  else await print((await import("./report.ts")).formatReport(told, samples, verdicts));
  const missed = verdicts.filter(({ outcome }) => outcome === "not met");
  if (options.enforce) for (const { promise } of missed) note(`not met: ${promise.text}`);
  return failures > 0 || (options.enforce && missed.length > 0) ? EXIT_FAILED : 0;
}

async function showHelp(): Promise<number> {
  const [{ CLONE_OPTIONS }, { APP_OPTIONS }, { PORTS_OPTIONS }, { FORK_OPTIONS }, { DENSITY_OPTIONS }] =
    await Promise.all([
      import("./options.ts"),
      import("./app/options.ts"),
      import("./ports/options.ts"),
      import("./fork/options.ts"),
      import("./density/options.ts"),
    ]);
  const listed = (options: Readonly<Record<string, { summary: string; value?: string }>>) =>
    Object.entries(options).map(([name, { summary, value }]) => {
      const words = `--${name}${value === undefined ? "" : ` ${value}`}`;
      return `  ${words.padEnd(20)}${summary}\n`;
    });
  const json = `  ${"--json".padEnd(20)}Print one JSON object and nothing else\n`;
  const parts = [
    "\nOptions of clone:\n",
    ...listed(CLONE_OPTIONS),
    json,
    "\nOptions of app:\n",
    ...listed(APP_OPTIONS),
    json,
    "\nOptions of ports:\n",
    ...listed(PORTS_OPTIONS),
    json,
    "\nOptions of fork:\n",
    ...listed(FORK_OPTIONS),
    json,
    "\nOptions of density:\n",
    ...listed(DENSITY_OPTIONS),
    json,
  ];
  await print(`${HELP_HEAD}${parts.join("")}`);
  return 0;
}
