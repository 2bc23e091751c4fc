/** `mayfly bench SCENARIO`: what it may be told, and what it prints. */
import { usageError } from "../src/cli/arguments.ts";
import { printJson } from "../src/cli/output.ts";
import { progressLine } from "../src/cli/progress.ts";
import type { GlobalOptions } from "../src/cli/specification.ts";
import { writeText } from "../src/sys/paths.ts";
import { print, printError } from "../src/sys/standard-io.ts";
import type { BenchOptions } from "./options.ts";

/** Something could not be measured, or with `--enforce` a promise is not met. */
const EXIT_FAILED = 1;

const HELP_HEAD = `Usage: mayfly bench clone [OPTIONS]

Start VMs in every way there is, one sample of each in every round, other runtimes beside them; then many at once, and the
memory of idle ones. It starts daemons of its own, which leave nothing behind; the machine should have nothing else to do.

Options:
`;

/**
 * Runs a scenario.
 * @param operands its name and its own options.
 * @returns the exit code: 1 if something could not be measured, and with `--enforce` if a promise is not met.
 */
export async function main(operands: readonly string[], global: GlobalOptions): Promise<number> {
  const [scenario, ...words] = operands;
  if (scenario === "serve") return (await import("./serve.ts")).serve(words);
  if (scenario === undefined || scenario === "--help" || scenario === "-h") return showHelp();
  if (scenario !== "clone") throw usageError("mayfly bench", `there is no scenario ${scenario}, only clone`);
  const { benchOptions } = await import("./options.ts");
  const options = benchOptions(words, global.json);
  if (options === undefined) return showHelp();
  if (global.host !== undefined) {
    throw usageError("mayfly bench", "--host has no use here: the benchmark runs daemons of its own");
  }
  return runClone(options);
}

async function runClone(options: BenchOptions): Promise<number> {
  const [{ runCloneScenario }, { judge }] = await Promise.all([import("./clone.ts"), import("./promises.ts")]);
  const interrupt = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => interrupt.abort());
  const line = progressLine();
  const note = (text: string) => {
    line.clear();
    void printError(`mayfly bench: ${text}\n`);
  };
  const listener = { signal: interrupt.signal, note, progress: (step: string) => line.show(step) };
  const { report, samples, failures } = await runCloneScenario(options, listener).finally(() => line.clear());
  const { samplesPath } = options;
  const { rows, ...head } = report;
  if (samplesPath !== undefined) await writeText(samplesPath, samples.toJsonLines({ ...head, options }));
  const verdicts = judge(rows);
  if (options.json) await printJson(report);
  else await print((await import("./report.ts")).formatReport(report, samples, verdicts));
  const missed = verdicts.filter(({ outcome }) => outcome === "not met");
  if (options.enforce) for (const { promise } of missed) note(`not met: ${promise.text}`);
  return failures > 0 || (options.enforce && missed.length > 0) ? EXIT_FAILED : 0;
}

async function showHelp(): Promise<number> {
  const { CLONE_OPTIONS } = await import("./options.ts");
  const lines = Object.entries(CLONE_OPTIONS).map(([name, spec]) => {
    const value = "value" in spec ? ` ${spec.value}` : "";
    return `  ${`--${name}${value}`.padEnd(20)}${spec.summary}\n`;
  });
  await print(`${HELP_HEAD}${lines.join("")}  ${"--json".padEnd(20)}Print one JSON object and nothing else\n`);
  return 0;
}
