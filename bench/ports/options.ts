/** What `mayfly bench ports` may be told. */
import { readOptions, usageError } from "../../src/cli/arguments.ts";
import { UNIVERSAL_OPTIONS } from "../../src/cli/specification.ts";
import { wholeNumber } from "../options.ts";

/** Options of the scenario, all decided. */
export interface PortsOptions {
  rounds: number;
  samplesPath: string | undefined;
  enforce: boolean;
  json: boolean;
}

const NAME = "mayfly bench ports";
const DEFAULT_ROUNDS = 10;

/** Options of the scenario `ports`. */
export const PORTS_OPTIONS = {
  rounds: { kind: "value", value: "N", summary: "Rounds, one sample of each traffic on each network in each (10)" },
  samples: { kind: "value", value: "FILE", summary: "Write every sample to a file, as JSON lines", complete: "file" },
  enforce: { kind: "flag", summary: "End with code 1 if a promise is not met" },
} as const;

/** Reads the words after the scenario's name. @returns undefined when help was asked for. @throws `invalid_argument`. */
export function portsOptions(argv: readonly string[], json: boolean): PortsOptions | undefined {
  const { options, operands } = readOptions({ ...UNIVERSAL_OPTIONS, ...PORTS_OPTIONS }, argv, NAME, false);
  if (options["help"] === true) return undefined;
  if (operands.length > 0) throw usageError(NAME, `unexpected argument ${JSON.stringify(operands[0])}`);
  const samples = options["samples"];
  return {
    rounds: wholeNumber(NAME, "rounds", options["rounds"]) ?? DEFAULT_ROUNDS,
    samplesPath: typeof samples === "string" ? samples : undefined,
    enforce: options["enforce"] === true,
    json: json || options["json"] === true,
  };
}
