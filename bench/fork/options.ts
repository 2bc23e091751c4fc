/** What `mayfly bench fork` may be told. */
import { resolve } from "node:path";
import { readOptions, usageError } from "../../src/cli/arguments.ts";
import { UNIVERSAL_OPTIONS } from "../../src/cli/specification.ts";
import { MAX_CHILDREN } from "../../src/contract/api.ts";
import { SHAPE_MEMORY_MIB } from "../../src/contract/machine.ts";
import { wholeNumber } from "../options.ts";

/** Options of the scenario, all decided. */
export interface ForkOptions {
  runs: number;
  /** Generations of the chain of forks. */
  depth: number;
  /** Children of the fork that makes several at once. */
  children: number;
  /** MiB that the parent of one subject has written. */
  dirtyMiB: number;
  /** QEMU's own ways beside. */
  qemu: boolean;
  /** Where the picture of the curves goes; without it they are not measured. */
  plotPath: string | undefined;
  /** Guest sizes of the curves. */
  sizesMiB: readonly number[];
  samplesPath: string | undefined;
  enforce: boolean;
  json: boolean;
}

const NAME = "mayfly bench fork";
const DEFAULT_RUNS = 50;
const DEFAULT_SIZES_MIB = [128, 256, 512, 1024, 2048, 4096];
const MOST_DIRTY_MIB = 1024;
const MOST_DEPTH = 64;

/** Options of the scenario `fork`. */
export const FORK_OPTIONS = {
  runs: { kind: "value", value: "N", summary: "Rounds, one sample of each subject in each (50)" },
  depth: { kind: "value", value: "D", summary: "Also forks of forks, so many generations deep (5)" },
  children: { kind: "value", value: "N", summary: "Also so many children at once (10)" },
  dirty: { kind: "value", value: "MIB", summary: "Also a parent that has written so much (64)" },
  "no-qemu": { kind: "flag", summary: "Leave out savevm, loadvm and migration into a file" },
  plot: {
    kind: "value",
    value: "FILE",
    summary: "Measure costs by size as well, and draw them as SVG",
    complete: "file",
  },
  sizes: { kind: "value", value: "LIST", summary: "Guest sizes for that, in MiB (128,256,512,1024,2048,4096)" },
  samples: { kind: "value", value: "FILE", summary: "Write every sample to a file, as JSON lines", complete: "file" },
  enforce: { kind: "flag", summary: "End with code 1 if a promise is not met" },
} as const;

/** Reads the words after the scenario's name. @returns undefined when help was asked for. @throws `invalid_argument`. */
export function forkOptions(argv: readonly string[], json: boolean): ForkOptions | undefined {
  const { options, operands } = readOptions({ ...UNIVERSAL_OPTIONS, ...FORK_OPTIONS }, argv, NAME, false);
  if (options["help"] === true) return undefined;
  if (operands.length > 0) throw usageError(NAME, `unexpected argument ${JSON.stringify(operands[0])}`);
  const { samples, plot } = options;
  const whole = (name: string, most: number, otherwise: number) => {
    const value = wholeNumber(NAME, name, options[name]) ?? otherwise;
    if (value > most) throw usageError(NAME, `--${name} is ${value}, more than ${most}`);
    return value;
  };
  return {
    runs: wholeNumber(NAME, "runs", options["runs"]) ?? DEFAULT_RUNS,
    depth: whole("depth", MOST_DEPTH, 5),
    children: whole("children", MAX_CHILDREN, 10),
    dirtyMiB: whole("dirty", MOST_DIRTY_MIB, 64),
    qemu: options["no-qemu"] !== true,
    plotPath: typeof plot === "string" ? resolve(plot) : undefined,
    sizesMiB: sizesOf(options["sizes"]),
    samplesPath: typeof samples === "string" ? samples : undefined,
    enforce: options["enforce"] === true,
    json: json || options["json"] === true,
  };
}

function sizesOf(text: unknown): readonly number[] {
  if (typeof text !== "string") return DEFAULT_SIZES_MIB;
  const sizes = text.split(",").map(Number);
  const wrong = sizes.find((size) => !SHAPE_MEMORY_MIB.some((known) => known === size));
  if (wrong === undefined) return sizes.toSorted((a, b) => a - b);
  throw usageError(NAME, `--sizes has ${wrong}; guests have ${SHAPE_MEMORY_MIB.join(", ")} MiB`);
}
