/** What `mayfly bench app` may be told. */
import { readOptions, usageError } from "../../src/cli/arguments.ts";
import { UNIVERSAL_OPTIONS } from "../../src/cli/specification.ts";
import { wholeNumber } from "../options.ts";
import { APPS, type App } from "./recipes.ts";

/** Options of the scenario, all decided. */
export interface AppOptions {
  app: App;
  runs: number;
  podman: boolean;
  samplesPath: string | undefined;
  enforce: boolean;
  json: boolean;
}

const NAME = "mayfly bench app";
const DEFAULT_RUNS = 20;

/** Options of the scenario `app`. */
export const APP_OPTIONS = {
  app: { kind: "value", value: "APP", summary: "node, python or java (node)" },
  runs: { kind: "value", value: "N", summary: "Rounds, one sample of each subject in each (20)" },
  "no-podman": { kind: "flag", summary: "Leave podman out; otherwise it is installed if it is missing" },
  samples: { kind: "value", value: "FILE", summary: "Write every sample to a file, as JSON lines", complete: "file" },
  enforce: { kind: "flag", summary: "End with code 1 if a promise is not met" },
} as const;

/** Reads the words after the scenario's name. @returns undefined when help was asked for. @throws `invalid_argument`. */
export function appOptions(argv: readonly string[], json: boolean): AppOptions | undefined {
  const { options, operands } = readOptions({ ...UNIVERSAL_OPTIONS, ...APP_OPTIONS }, argv, NAME, false);
  if (options["help"] === true) return undefined;
  if (operands.length > 0) throw usageError(NAME, `unexpected argument ${JSON.stringify(operands[0])}`);
  const name = options["app"] ?? "node";
  const app = APPS.find((candidate) => candidate === name);
  if (app === undefined) throw usageError(NAME, `--app is ${JSON.stringify(name)}; there are ${APPS.join(", ")}`);
  const samples = options["samples"];
  return {
    app,
    runs: wholeNumber(NAME, "runs", options["runs"]) ?? DEFAULT_RUNS,
    podman: options["no-podman"] !== true,
    samplesPath: typeof samples === "string" ? samples : undefined,
    enforce: options["enforce"] === true,
    json: json || options["json"] === true,
  };
}
